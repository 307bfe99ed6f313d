// Numbers as people read them, with at most four significant digits; counts are whole.

const missing = (v) => v === null || v === undefined || Number.isNaN(v);

// A number in text: 0.1235, 3.14, 225,000, 1.235e+36.
export function short(v) {
  if (missing(v)) return "–";
  const near = Number(v.toPrecision(4)) + 0; // no negative zero
  if (near !== 0 && (Math.abs(near) >= 1e9 || Math.abs(near) < 1e-4)) return near.toExponential();
  return near.toLocaleString("en", { maximumSignificantDigits: 4 });
}

// The same for a field, where one types it.
export const typed = (v) => (missing(v) ? "" : String(Number(v.toPrecision(4))));

// One number, several, or words.
export const listed = (v) =>
  (Array.isArray(v) ? v.map(listed).join(", ") : typeof v === "number" || missing(v) ? short(v) : String(v));

// A count.
export const whole = (n) => (Math.abs(n) < 1e9 ? (Math.round(n) + 0).toLocaleString("en") : short(n));

export const percent = (share) => (missing(share) ? "–" : share === 1 ? "100 %" : `${(100 * share).toFixed(2)} %`);
