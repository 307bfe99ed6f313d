"""Detect the x86-64 level of this processor. Built without instruction-set flags, because it runs before any choice."""

cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <cpuid.h>

    /* The builtin also checks that the operating system saves the registers. The cpuid bits are for features whose names
       gcc and clang learned late. */
    static const char *mlgraph_isa(void) {
        unsigned a, b, c = 0, d, ext = 0;
        __builtin_cpu_init();
        __get_cpuid(1, &a, &b, &c, &d);
        __get_cpuid(0x80000001u, &a, &b, &ext, &d);
        if (!(__builtin_cpu_supports("sse3") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1")
              && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")
              && (c & bit_CMPXCHG16B) && (ext & bit_LAHF_LM)))
            return "baseline";
        if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
              && __builtin_cpu_supports("bmi2") && (c & bit_F16C) && (c & bit_MOVBE) && (ext & bit_ABM)))
            return "v2";
        if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
              && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
              && __builtin_cpu_supports("avx512vl")))
            return "v3";
        return "v4";
    }
    #else
    static const char *mlgraph_isa(void) { return "baseline"; }
    #endif
    """
    const char *mlgraph_isa() noexcept nogil


def best():
    """The highest build that this processor can run: "v4", "v3" or "v2", or "baseline" if it can run none of them."""
    return mlgraph_isa().decode("ascii")
