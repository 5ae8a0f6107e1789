// The vector class: LANES fp32 numbers, as the compilers' vector extension has them (GCC's and clang's, whose operators
// work on any processor), with intrinsics where a processor does better than what these write.
//
// A unit names LANES before it includes this.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

struct bf16 {
    uint16_t bits;
};

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

// `body(count)` with the count, from 1 to MOST, as a constant of the compiler's.
template <long MOST, class Body>
inline void with_count(long count, const Body& body) {
    if constexpr (MOST > 0) {
        if (count == MOST)
            body(std::integral_constant<long, MOST>{});
        else
            with_count<MOST - 1>(count, body);
    }
}

// --- numbers of either precision ----------------------------------------------------------------------------------

inline float wide(float x) { return x; }
inline float wide(bf16 x) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}
inline void narrow(float x, float& to) { to = x; }
// To nearest, ties to even, as processors round.
inline void narrow(float x, bf16& to) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to.bits = std::isnan(x) ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// --- to and from memory -------------------------------------------------------------------------------------------

inline Vector broadcast(float x) { return x - Vector{}; }

template <class To, class From>
inline To as(const From& x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

template <class Whole, class Part>
inline Whole read(const Part* from) {
    Whole x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline Vector load(const float* from) { return read<Vector>(from); }
inline Vector load(const bf16* from) { return as<Vector>(__builtin_convertvector(read<Halves>(from), Bits) << 16); }
inline void store(float* to, Vector x) { std::memcpy(to, &x, sizeof x); }

#if defined(__AVX512BF16__)
inline void store(bf16* to, Vector x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)x)); }
inline void store(bf16* to, Vector left, Vector right) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)right, (__m512)left));
}
#elif defined(__ARM_FEATURE_BF16)
inline void store(bf16* to, Vector x) {
    const bfloat16x4_t rounded = vcvt_bf16_f32((float32x4_t)x);
    std::memcpy(to, &rounded, sizeof rounded);
}
#else
inline void store(bf16* to, Vector x) {
    const Bits bits = as<Bits>(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const Halves y = __builtin_convertvector(x == x ? rounded : Bits{} + 0x7fc0, Halves);
    std::memcpy(to, &y, sizeof y);
}
#endif
template <class Number>
inline void store(Number* to, Vector left, Vector right) {
    store(to, left);
    store(to + LANES, right);
}

// Two vectors past the caches, `to` at a whole line, where a unit asks for it (STREAMED): a line that is written in full
// need not be read before, which on a processor with little bandwidth beyond its second cache is worth more than finding it
// in a cache later. What was streamed is there for other threads after `fence`.
#ifdef STREAMED
inline void stream(bf16* to, Vector left, Vector right) {
    _mm512_stream_si512((__m512i*)to, (__m512i)_mm512_cvtne2ps_pbh((__m512)right, (__m512)left));
}
inline void stream(float* to, Vector x) { _mm512_stream_ps(to, (__m512)x); }
inline void fence() { _mm_sfence(); }
#else
template <class Number>
inline void stream(Number* to, Vector left, Vector right) {
    store(to, left, right);
}
inline void stream(float* to, Vector x) { store(to, x); }
inline void fence() {}
#endif

// --- arithmetic ---------------------------------------------------------------------------------------------------

// a b + c in one rounding where the processor has it (-ffp-contract=fast).
inline Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }  // b where a is no number
inline Vector magnitude(Vector x) { return as<Vector>(as<Integers>(x) & 0x7fffffff); }

inline float sum(Vector x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#elif defined(__ARM_NEON)
    return vaddvq_f32((float32x4_t)x);
#elif defined(__AVX2__)
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float total = 0.0f;
    for (int i = 0; i < LANES; ++i) total += x[i];
    return total;
#endif
}

inline float largest(Vector x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#elif defined(__ARM_NEON)
    return vmaxvq_f32((float32x4_t)x);
#elif defined(__AVX2__)
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
    float most = x[0];
    for (int i = 1; i < LANES; ++i) most = std::max(most, x[i]);
    return most;
#endif
}

// 1 / x: the processor's 14 or 12 bits and a step of Newton's take half the time of a division.
inline Vector inverse_of(Vector x) {
#if defined(__AVX512F__)
    const Vector t = (Vector)_mm512_rcp14_ps((__m512)x);
    return t * (2.0f - x * t);
#elif defined(__AVX2__)
    const Vector t = (Vector)_mm256_rcp_ps((__m256)x);
    return t * (2.0f - x * t);
#else
    return 1.0f / x;
#endif
}

inline Integers lanes() {
    Integers x;
    for (int i = 0; i < LANES; ++i) x[i] = i;
    return x;
}

// The first `count` of x, and `other` behind them; any count.
inline Vector first(long count, Vector x, Vector other) {
    return lanes() < (int32_t)std::clamp(count, 0L, (long)LANES) ? x : other;
}

// The first `count` of LANES numbers, the others of which may lie beyond what may be read; zero behind them.
inline Vector load_first(const float* from, long count) {
    if (count >= LANES) return load(from);
    Vector x{};
    for (long i = 0; i < count; ++i) x[i] = from[i];
    return x;
}

// exp(x): 2^n times a polynomial of the rest, |rest| <= ln 2 / 2 (Taylor to the sixth power: 1e-7). NaN stays NaN.
inline Vector exponential(Vector x) {
    x = larger(broadcast(-87.0f), x);
#if defined(__AVX512F__)
    const Vector n = (Vector)_mm512_roundscale_ps((__m512)(x * 1.44269504f), 8);
#else
    const Vector high = broadcast(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to a whole number
    Vector n = x * 1.44269504f + high;
    n = n - high;
#endif
    Vector r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Vector y = broadcast(1.0f / 720);
    for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) y = fma(y, r, broadcast(factor));
#if defined(__AVX512F__)
    return (Vector)_mm512_scalef_ps((__m512)y, (__m512)n);
#else
    // In two halves, as 2^128 is no fp32 number; nothing here asks for more than exp(88).
    const Integers whole = __builtin_convertvector(n == n ? n : Vector{}, Integers), half = whole >> 1;
    return y * as<Vector>((half + 127) << 23) * as<Vector>((whole - half + 127) << 23);
#endif
}

// The normal distribution function at x, and exp(-x^2 / 2) (Abramowitz and Stegun 7.1.26: error below 1.5e-7).
inline Vector normal(Vector x, Vector& bell) {
    bell = exponential(x * x * -0.5f);
    const Vector t = inverse_of(fma(magnitude(x), broadcast(0.3275911f * 0.70710678f), broadcast(1.0f)));
    Vector y = broadcast(1.061405429f);
    for (float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) y = fma(y, t, broadcast(factor));
    const Vector tail = y * t * bell * 0.5f;
    return x >= 0.0f ? 1.0f - tail : tail;
}

// 2^x of what bf16 numbers are made of: the rest above a whole number by a polynomial (7.5e-5). NaN stays NaN.
inline Vector power_of_two(Vector x) {
    x = larger(broadcast(-125.0f), x);
#if defined(__AVX512F__)
    const Vector rest = (Vector)_mm512_reduce_ps((__m512)x, 1);
#else
    const Vector high = broadcast(12582912.0f), whole = x - 0.5f + high - high, rest = x - whole;
#endif
    Vector y = broadcast(0.07802452f);
    for (float factor : {0.22606716f, 0.69583354f, 0.99992522f}) y = fma(y, rest, broadcast(factor));
#if defined(__AVX512F__)
    return (Vector)_mm512_scalef_ps((__m512)y, (__m512)x);
#else
    return as<Vector>(as<Integers>(y) + (__builtin_convertvector(whole == whole ? whole : Vector{}, Integers) << 23));
#endif
}

// exp(x), as exactly as `Number` keeps it.
template <class Number>
inline Vector exponential_in(Vector x) {
    if constexpr (std::is_same_v<Number, bf16>) return power_of_two(x * 1.44269504f);
    return exponential(x);
}

// gelu, as exactly as `Number` keeps it, and its slope unless that is null.
template <class Number>
inline Vector gelu_of(Vector x, Vector* slope) {
    if constexpr (std::is_same_v<Number, bf16>) {
        // Both by the distribution function at -|x|: 2 to a polynomial (2.4e-4), and the density over it another (3.5e-5).
        const Vector bound = broadcast(6.0f), size = magnitude(x), at = bound < size ? bound : size;
        Vector y = broadcast(-0.000233443104f), ratio = broadcast(-0.0114874635f);
        for (float factor : {0.00488181924f, -0.0446814522f, -0.469501853f, -1.14638066f, -1.00034738f}) y = fma(y, at, broadcast(factor));
        const Vector tail = power_of_two(y), share = x >= 0.0f ? 1.0f - tail : tail;
        if (slope) {
            for (float factor : {0.094682619f, 0.645362556f, 0.796388209f}) ratio = fma(ratio, at, broadcast(factor));
            *slope = fma(x * tail, ratio, share);
        }
        return x * share;
    }
    Vector bell;
    const Vector share = normal(x, bell);
    if (slope) *slope = fma(x * bell, broadcast(0.39894228f), share);
    return x * share;
}
