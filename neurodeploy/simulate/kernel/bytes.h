/* Bytes, sixteen at a time, and what is counted in them; part of kernel.c. */

/* Sixteen counts at once; GCC and clang have such vectors on every machine. */
typedef uint8_t nd_bytes __attribute__((vector_size(ND_LANES)));

ND_INLINE uint64_t mask_at(const uint8_t *at) {
    uint64_t mask;
    memcpy(&mask, at, sizeof mask);
    return mask;
}

/* A word whose first byte in memory is its lowest. */
ND_INLINE uint64_t in_order(uint64_t word) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

ND_INLINE nd_bytes bytes_at(const uint8_t *at) {
    nd_bytes value;
    memcpy(&value, at, sizeof value);
    return value;
}

ND_INLINE void widen(uint32_t *sums, nd_bytes added) {
    for (int lane = 0; lane < ND_LANES; lane++) sums[lane] += added[lane];
}

/* 1 where a count is not 0. */
ND_INLINE nd_bytes some_of(nd_bytes counts) {
#ifdef ND_X86
    return (nd_bytes)_mm_min_epu8((__m128i)counts, _mm_set1_epi8(1));
#else
    return -(nd_bytes)(counts != 0);
#endif
}

/* Sixteen bytes added up, in parts. */
#ifdef ND_X86
typedef __m128i nd_total;
ND_INLINE nd_total nothing(void) { return _mm_setzero_si128(); }
ND_INLINE nd_total added_to(nd_total total, nd_bytes counts) {
    return _mm_add_epi32(total, _mm_sad_epu8((__m128i)counts, _mm_setzero_si128()));
}
ND_INLINE uint32_t whole(nd_total total) {
    return (uint32_t)_mm_cvtsi128_si32(total) + (uint32_t)_mm_cvtsi128_si32(_mm_unpackhi_epi64(total, total));
}
#elif defined(ND_ARM)
typedef uint32x4_t nd_total;
ND_INLINE nd_total nothing(void) { return vdupq_n_u32(0); }
ND_INLINE nd_total added_to(nd_total total, nd_bytes counts) { return vpadalq_u16(total, vpaddlq_u8((uint8x16_t)counts)); }
ND_INLINE uint32_t whole(nd_total total) { return vaddvq_u32(total); }
#else
typedef uint32_t nd_total;
ND_INLINE nd_total nothing(void) { return 0; }
ND_INLINE nd_total added_to(nd_total total, nd_bytes counts) {
    for (int lane = 0; lane < ND_LANES; lane++) total += counts[lane];
    return total;
}
ND_INLINE uint32_t whole(nd_total total) { return total; }
#endif

/* Levels of which eight places always fit a byte together. */
#define ND_STEP_LEVELS (255 / ND_PIXELS)
