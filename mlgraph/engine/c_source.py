"""Writes a plan as C99: one file that computes the outputs for one example."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from mlgraph._support.array_types import Float32, Int32
from mlgraph._support.checks import shown
from mlgraph.compiler.instructions import KINDS, Instruction
from mlgraph.compiler.plan import Plan
from mlgraph.engine.reference import arguments_of, neuron
from mlgraph.engine.units import Units, comment, numbered
from mlgraph.graph import ops

KEYWORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
alignas alignof bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual
"""
"""Keywords of C, and on the last lines those of C23, GCC 15's default."""

MATHEMATICS = """acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim
floor fma fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf
nan nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan tanh
tgamma trunc
gamma lgamma_r j0 j1 jn y0 y1 yn finite isinf isnan drem scalb significand
acospi asinpi atan2pi atanpi canonicalize compoundn cospi dadd ddiv dfma dmul dsqrt dsub exp10 exp10m1 exp2m1
fadd fdiv ffma fmaximum fmaximum_mag fmaximum_mag_num fmaximum_num fminimum fminimum_mag fminimum_mag_num
fminimum_num fmul fromfp fromfpx fsqrt fsub getpayload llogb log10p1 log2p1 logp1 nextdown nextup pown powr rootn
roundeven rsqrt setpayload setpayloadsig sinpi tanpi totalorder totalordermag ufromfp ufromfpx"""
OTHERS = """
lgammaf_r lgammal_r iscanonical iseqsig issignaling issubnormal iszero float_t double_t isfinite isnormal
signbit fpclassify isgreater isgreaterequal isless islessequal islessgreater isunordered math_errhandling
signgam NAN INFINITY asm linux unix main place columns means deviations sources lists weights biases
"""
TAKEN = {*KEYWORDS.split(), *(name + kind for name in MATHEMATICS.split() for kind in ("", "f", "l")), *OTHERS.split()}
"""Names that the language, math.h (of C23, POSIX and GNU) or the tables of a file use; `FUNCTIONS` has more."""

PATTERN = "(?!HUGE_VAL|FP_|MATH_|M_)[A-Za-z][A-Za-z0-9_]*"
"""Names, except those that math.h reserves for its constants."""

EXPRESSIONS = {
    "identity": "{}",
    "neg": "-{}",
    "abs": "fabsf({})",
    "exp": "expf({})",
    "log": "logf({})",
    "sqrt": "sqrtf({})",
    "sin": "sinf({})",
    "cos": "cosf({})",
    "tanh": "tanhf({})",
    "expm1": "expm1f({})",
    "log1p": "log1pf({})",
    "sinh": "sinhf({})",
    "cosh": "coshf({})",
    "arctan": "atanf({})",
    "arcsin": "asinf({})",
    "arccos": "acosf({})",
    "erf": "erff({})",
    "floor": "floorf({})",
    "pow": "powf({}, {})",
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
}
"""Operations that are an operator or a function of C."""

REDUCTION = """float {name}(const float *v, const place *at, int n)
{{
    float y = {first};
    for (int i = 0; i < n; i++)
        y = {next};
    return y;
}}"""

FUNCTIONS = {
    "relu": "float relu(float x) { return x < 0 ? 0 : x; }",
    "leaky_relu": f"float leaky_relu(float x) {{ return x > 0 ? x : {ops.LEAK}f * x; }}",
    "sigmoid": "float sigmoid(float x) { float e = expf(-fabsf(x)); return (x < 0 ? e : 1) / (1 + e); }",
    "softplus": "float softplus(float x) { return (x < 0 ? 0 : x) + log1pf(expf(-fabsf(x))); }",
    "elu": "float elu(float x) { return x > 0 ? x : expm1f(x); }",
    "gelu": """float gelu(float x)
{
    float a = fabsf(x) < 100 || isnan(x) ? fabsf(x) : 100;
    return (x < 0 ? 0 : x) - a * (float)(0.5 * erfc(a * 0.70710678118654752));
}""",
    "silu": """float silu(float x)
{
    float a = fabsf(x) < 130 || isnan(x) ? fabsf(x) : 130, e = expf(-a);
    return (x < 0 ? 0 : x) - a * e / (1 + e);
}""",
    "sign": "float sign(float x) { return x > 0 ? 1 : x < 0 ? -1 : x; }",
    "maximum": "float maximum(float a, float b) { return a > b || isnan(a) ? a : b; }",
    "minimum": "float minimum(float a, float b) { return a < b || isnan(a) ? a : b; }",
    "where": "float where(float c, float a, float b) { return c > 0 ? a : b; }",
    "sum": REDUCTION.format(name="sum", first="0", next="y + v[at[i]]"),
    "prod": REDUCTION.format(name="prod", first="1", next="y * v[at[i]]"),
    "max": REDUCTION.format(name="max", first="v[at[0]]", next="v[at[i]] > y || isnan(v[at[i]]) ? v[at[i]] : y"),
    "logsumexp": """float logsumexp(const float *v, const place *at, int n)
{
    float most = v[at[0]], y = 0;
    for (int i = 1; i < n; i++)
        most = v[at[i]] > most ? v[at[i]] : most;
    most = isfinite(most) ? most : 0;
    for (int i = 0; i < n; i++)
        y += expf(v[at[i]] - most);
    return most + logf(y);
}""",
    "dense": """void dense(float *restrict z, int n, const float *v, const place *source, int arity,
                  const float *restrict weight, const float *restrict bias)
{   /* n neurons that all have the same sources; the weights of each source stand side by side */
    for (int i = 0; i < n; i++)
        z[i] = bias[i];
    for (int k = 0; k < arity; k++, weight += n)
        for (int i = 0; i < n; i++)
            z[i] += weight[i] * v[source[k]];
}""",
    "rows": """void rows(float *z, int n, const float *v, const int (*list)[2], const float *weight, const float *bias)
{   /* n neurons, each with a list of sources: where it begins, and how many there are */
    for (int i = 0; i < n; i++) {
        const place *source = sources + list[i][0];
        float sum = bias[i];
        for (int k = 0; k < list[i][1]; k++)
            sum += *weight++ * v[source[k]];
        z[i] = sum;
    }
}""",
}
"""C functions for the other operations, and for neurons; a file contains those that it uses."""


class Writer:
    """Collects the statements of a function, and the tables and C functions that they use."""

    def __init__(self, plan: Plan, parameters: Float32) -> None:
        self.plan, self.parameters = plan, parameters
        self.statements: list[str] = []
        self.used: set[str] = set()
        self.weights: list[Float32] = []
        self.biases: list[Float32] = []
        self.lists: list[tuple[int, int]] = []
        self.sources: list[int] = []
        self.n_weights = self.n_biases = 0
        self._begin: dict[tuple[int, ...], int] = {}
        for ins in plan.instructions:
            self._write(ins)

    def _write(self, ins: Instruction) -> None:
        if ins.kind in (KINDS["constant"], KINDS["parameter"]):
            vector = self.plan.constants if ins.kind == KINDS["constant"] else self.parameters
            for i, value in enumerate(literals(vector[ins.weights : ins.weights + ins.size])):
                self.statements.append(f"v[{ins.dst + i}] = {value};")
        elif ins.kind == KINDS["operation"]:
            name = ops.BY_CODE[ins.op].name
            for i, arguments in enumerate(arguments_of(self.plan, ins).tolist()):
                values = [f"v[{k}]" for k in arguments]
                if ops.BY_CODE[ins.op].arity < 0:
                    values = ["v", f"sources + {self._list_of(arguments)}", f"{len(arguments)}"]
                self.statements.append(f"v[{ins.dst + i}] = {self._apply(name, values)};")
        else:
            self._write_neurons(ins)

    def _write_neurons(self, ins: Instruction) -> None:
        sources, places = zip(*(neuron(self.plan, ins, i) for i in range(ins.size)), strict=True)
        tables = f"weights + {self.n_weights}, biases + {self.n_biases}"
        if ins.kind == KINDS["dense"]:
            self.weights.append(self.parameters[np.column_stack(places)].reshape(-1))
            begin = self._list_of(sources[0].tolist())
            call = f"dense(v + {ins.dst}, {ins.size}, v, sources + {begin}, {ins.arity}, {tables});"
            self.used.add("dense")
        else:
            self.weights.append(self.parameters[np.concatenate(places)])
            call = f"rows(v + {ins.dst}, {ins.size}, v, lists + {len(self.lists)}, {tables});"
            self.lists += [(self._list_of(each.tolist()), len(each)) for each in sources]
            self.used.add("rows")
        has_bias = ins.bias >= 0
        self.biases.append(
            self.parameters[ins.bias : ins.bias + ins.size] if has_bias else np.zeros(ins.size, np.float32)
        )
        self.n_weights, self.n_biases = self.n_weights + len(self.weights[-1]), self.n_biases + ins.size
        self.statements.append(call)
        name = ops.BY_CODE[ins.op].name
        if name != "identity":
            self.statements.append(f"for (int i = {ins.dst}; i < {ins.dst + ins.size}; i++)")
            self.statements.append(f"    v[i] = {self._apply(name, ['v[i]'])};")

    def _apply(self, name: str, values: Sequence[str]) -> str:
        if name in EXPRESSIONS:
            return EXPRESSIONS[name].format(*values)
        self.used.add(name)
        return f"{name}({', '.join(values)})"

    def _list_of(self, sources: list[int]) -> int:
        """Index of a list of sources in the table; equal lists are written once."""
        key = tuple(sources)
        if key not in self._begin:
            self._begin[key] = len(self.sources)
            self.sources += sources
        return self._begin[key]


def checked_name(name: str) -> str:
    """Return `name`; ValueError if it is not an identifier of C, or is used otherwise in a file."""
    if not isinstance(name, str) or not re.fullmatch(PATTERN, name) or name in TAKEN.union(FUNCTIONS):
        raise ValueError(f"name: expected a C identifier that is not a keyword or used by math.h, got {shown(name)}")
    return name


def c_source(plan: Plan, parameters: Float32, outputs: Int32, name: str, units: Units | None = None) -> str:
    """See `Function.to_c`; `outputs` are slots."""
    writer, columns = Writer(plan, parameters), plan.input_column
    n, gaps = len(columns), bool(np.any(columns != np.arange(len(columns))))
    x = "x[columns[i]]" if gaps else "x[i]"
    first = f"inputs: {plan.n_columns}, outputs: {len(outputs)}, weights: {writer.n_weights}"
    out = [*comment(first, _about(units) if units else []), "#include <math.h>", ""]
    if writer.sources:
        out += [f"typedef unsigned {'short' if plan.n_slots <= 2**16 else 'int'} place; /* of a value in v */", ""]
    if gaps:
        out += table("int columns[]", map(str, columns.tolist()))
    if units and n and units.divisor is None:
        out += table("double means[]", map(repr, units.mean[columns].tolist()))
        out += table("double deviations[]", map(repr, units.std[columns].tolist()))
        x = f"(float)(({x} - means[i]) / deviations[i])"
    elif units and units.divisor != 1:
        x = f"{x} / {units.divisor:g}"
    if writer.sources:
        out += table("place sources[]", map(str, writer.sources))
    if writer.lists:
        out += table("int lists[][2]", (f"{{{begin}, {count}}}" for begin, count in writer.lists))
    if writer.weights:
        out += table("float weights[]", literals(np.concatenate(writer.weights)))
        out += table("float biases[]", literals(np.concatenate(writer.biases)))
    for function, text in FUNCTIONS.items():
        if function in writer.used:
            out += [f"static {text}", ""]
    function = f"void {name}(const float *x, float *y)"
    out += [f"{function};", "", function, "{", f"    float v[{plan.n_slots}];"]
    read = f"    for (int i = 0; i < {n}; i++)\n        v[i] = {x};"
    out += [read if n else "    (void)x;", *(f"    {statement}" for statement in writer.statements)]
    out += [*(f"    y[{i}] = v[{slot}];" for i, slot in enumerate(outputs.tolist())), "}", ""]
    return "\n".join(out)


def _about(units: Units) -> list[str]:
    """What the function reads and writes."""
    numbers = "numbers from 0 to 255" if units.divisor == 255 else "the numbers of the data"
    lines = [f"x has {numbers}{':' if units.inputs else '.'}", *numbered("x", units.inputs)]
    return [*lines, "", *units.answers] if units.answers else lines


def literals(numbers: Float32) -> list[str]:
    """Numbers as C literals, with the fewest digits that reproduce them exactly."""
    special = {"nan": "NAN", "inf": "INFINITY", "-inf": "-INFINITY"}
    # One by one: an array of strings would take 128 bytes for each number.
    return [special.get(text, f"{text}f") for text in map(str, numbers)]


def table(declared: str, items: Iterable[str]) -> list[str]:
    """A constant array with eight items on a line."""
    items = list(items)
    lines = [", ".join(items[i : i + 8]) for i in range(0, len(items), 8)]
    return [f"static const {declared} = {{", *(f"    {line}," for line in lines), "};", ""]
