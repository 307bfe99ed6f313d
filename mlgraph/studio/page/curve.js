// Not yet written.
export function begin(root) {}
