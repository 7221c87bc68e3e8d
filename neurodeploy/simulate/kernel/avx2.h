/* The AVX2 path; part of x86.h. */

/* ---- AVX2: four places by sixteen channels, sums of counts in int16 lanes for as long as they cannot overflow ---- */

ND_TARGET_AVX2 ND_INLINE void term_avx2_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add, const int graded) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int8_t *weights = (const int8_t *)term->weights + 4 * first;
    __m256i total[4][2], lanes[4][2];
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) total[p][0] = total[p][1] = lanes[p][0] = lanes[p][1] = _mm256_setzero_si256();
    const int joined = taps_joined(term), columns = joined ? 1 : term->columns;
    const int groups = joined ? term->columns * term->groups : term->groups;
    int left = term->run;
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < columns; column++) {
            const uint8_t *tap = source + (int64_t)row * term->row_dilation * term->row_bytes
                                 + (int64_t)column * term->column_dilation * term->place_bytes;
            for (int group = 0; group < groups;) {
                /* as far as the lanes last: sums of 32 bits stay out of this loop, and out of its registers */
                const int end = graded || groups - group < left ? groups : group + left;
                left -= end - group;
                for (; group < end; group++, tap += 4, weights += 4 * layer->channels) {
                    const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)weights);
                    const __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(weights + 32));
#pragma GCC unroll 4
                    for (int p = 0; p < 4; p++) {
                        const __m256i x = _mm256_set1_epi32(four_bytes(tap + p * term->next_place));
                        if (graded) {
                            total[p][0] = _mm256_add_epi32(total[p][0], _mm256_madd_epi16(x, low));
                            total[p][1] = _mm256_add_epi32(total[p][1], _mm256_madd_epi16(x, high));
                        } else {
                            lanes[p][0] = _mm256_add_epi16(lanes[p][0], _mm256_maddubs_epi16(x, low));
                            lanes[p][1] = _mm256_add_epi16(lanes[p][1], _mm256_maddubs_epi16(x, high));
                        }
                    }
                }
                if (graded || left) continue;
                left = term->run;
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) {
                    for (int half = 0; half < 2; half++) {
                        total[p][half] = _mm256_add_epi32(total[p][half], _mm256_madd_epi16(lanes[p][half], ones));
                        lanes[p][half] = _mm256_setzero_si256();
                    }
                }
            }
        }
    }
    const __m128i shift = _mm_cvtsi32_si128(term->shift);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        for (int half = 0; half < 2; half++) {
            __m256i *at = (__m256i *)(void *)(sums + (int64_t)p * layer->channels + first + 8 * half);
            __m256i sum = total[p][half];
            if (!graded) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(lanes[p][half], ones));
            sum = _mm256_sll_epi32(sum, shift);
            _mm256_storeu_si256(at, add ? _mm256_add_epi32(_mm256_loadu_si256(at), sum) : sum);
        }
    }
}

ND_TARGET_AVX2 ND_INLINE void term_avx2(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    for (int start = 0; start < places; start += 4, source += 4 * term->next_place, sums += 4 * layer->channels) {
        for (int first = 0; first < layer->channels; first += ND_LANES) {
            if (term->graded) term_avx2_block(layer, term, source, first, sums, add, 1);
            else term_avx2_block(layer, term, source, first, sums, add, 0);
        }
    }
}

#define ND_E(name) name##_avx2
#define ND_ATTRIBUTES ND_TARGET_AVX2
#define ND_NARROW 16
#define ND_WIDE 8
#define ND_LIST list_plain
#include "events.h"
#include "count.h"
#include "tally.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_WIDE
#undef ND_LIST

#define tally_avx2(NAME) tally_##NAME##_avx2
ND_DEFINE_ROW(row_avx2, ND_TARGET_AVX2, term_avx2, events_avx2, count_plain, fire_plain, pack_plain, tally_avx2, ND_PIXELS)
