// Small transposes of 32-bit words, of which every panel is made: a word is one fp32 number, or two bf16 numbers that stay
// side by side.
#pragma once

#include "vector.h"

constexpr long SQUARE = 16;

#if defined(__AVX512F__)

inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

inline __mmask16 mask_of(long count) { return count >= 16 ? 0xffff : (1u << std::max(count, 0L)) - 1; }

// The square whose row i is at from(i) (null: zeros), `count` words of each, transposed to rows that are `step` words apart.
template <class From>
void transpose_square(const From& from, long count, uint32_t* to, long step) {
    __m512i square[16];
    for (long i = 0; i < 16; ++i) {
        const void* row = from(i);
        square[i] = row ? _mm512_maskz_loadu_epi32(mask_of(count), row) : _mm512_setzero_si512();
    }
    transpose(square);
    for (long i = 0; i < std::min(count, 16L); ++i) _mm512_storeu_si512(to + i * step, square[i]);
}

// Two rows, 16 columns, as words, each two numbers of a column. Rows of zeros are null.
inline void write_words(const bf16* even, const bf16* odd, uint32_t* to) {
    const auto row = [](const bf16* x) { return x ? _mm256_loadu_si256((const __m256i*)x) : _mm256_setzero_si256(); };
    const __m512i low = _mm512_cvtepu16_epi32(row(even)), high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(row(odd)), 16);
    _mm512_storeu_si512(to, _mm512_or_si512(low, high));
}

#elif defined(__AVX2__)

inline void transpose(__m256 (&r)[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        const __m256 first = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
        r[i] = first;
    }
}

// As above, a quarter of the square at a time.
template <class From>
void transpose_square(const From& from, long count, uint32_t* to, long step) {
    for (long left = 0; left < std::min(count, SQUARE); left += 8) {
        const long here = std::min(count - left, 8L);
        const __m256i mask = (__m256i)(lanes() < (int32_t)here);
        for (long top = 0; top < SQUARE; top += 8) {
            __m256 quarter[8];
            for (long i = 0; i < 8; ++i) {
                const auto* row = reinterpret_cast<const float*>(from(top + i));
                quarter[i] = row ? _mm256_maskload_ps(row + left, mask) : _mm256_setzero_ps();
            }
            transpose(quarter);
            for (long i = 0; i < here; ++i) _mm256_storeu_ps(reinterpret_cast<float*>(to + (left + i) * step + top), quarter[i]);
        }
    }
}

#else

template <class From>
void transpose_square(const From& from, long count, uint32_t* to, long step) {
    count = std::min(count, SQUARE);
    for (long i = 0; i < SQUARE; ++i) {
        const auto* row = reinterpret_cast<const uint32_t*>(from(i));
        for (long j = 0; j < count; ++j) to[j * step + i] = row ? row[j] : 0;
    }
}

#endif

#if !defined(__AVX512F__)

inline void write_words(const bf16* even, const bf16* odd, uint32_t* to) {
    for (long i = 0; i < SQUARE; ++i) to[i] = (even ? even[i].bits : 0) | (uint32_t)(odd ? odd[i].bits : 0) << 16;
}

#endif

// Of fp32 the first row alone, as it is.
inline void write_words(const float* row, const float*, uint32_t* to) {
    if (row)
        std::memcpy(to, row, SQUARE * sizeof(float));
    else
        std::memset(to, 0, SQUARE * sizeof(float));
}

// The square of words whose row i, of `count`, is at from(i), transposed: 16 rows of numbers, each as long as `count` words.
// The words of each pair of these rows (in fp32: of each row) go to place(row, column), 16 columns at a time.
template <class Number, class From, class Place>
void turn_square(const From& from, long count, const Place& place) {
    constexpr long WORD = sizeof(uint32_t) / sizeof(Number);
#if defined(__AVX512F__)
    if constexpr (WORD == 2) {
        __m512i square[16];
        for (long i = 0; i < SQUARE; ++i) square[i] = i < count ? _mm512_loadu_si512(from(i)) : _mm512_setzero_si512();
        transpose(square);
        alignas(64) static constexpr uint16_t order[2][32] = {
            {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
            {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
        for (long half = 0; half < count * WORD / SQUARE; ++half) {
            const __m512i pick = _mm512_load_si512(order[half]);
            for (long i = 0; i < SQUARE; i += WORD)
                _mm512_storeu_si512(place(i, half * SQUARE), _mm512_permutex2var_epi16(square[i], pick, square[i + 1]));
        }
        return;
    }
#endif
    uint32_t turned[SQUARE * SQUARE];
    transpose_square([&](long i) { return i < count ? from(i) : nullptr; }, SQUARE, turned, SQUARE);
    for (long i = 0; i < SQUARE; i += WORD)
        for (long j = 0; j < count * WORD; j += SQUARE) {
            const Number* even = reinterpret_cast<const Number*>(turned + i * SQUARE) + j;
            write_words(even, even + SQUARE * WORD, place(i, j));
        }
}
