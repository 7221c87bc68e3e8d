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

/* 32 bits of -1 where a neuron fired, of two times eight channels, as sixteen bytes of 1. */
ND_TARGET_AVX2 ND_INLINE __m128i spikes_avx2(__m256i low, __m256i high) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
    return _mm_abs_epi8(_mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

/* As decayed(), for |x| < 2^24: both factors of each product fit 16 bits. */
ND_TARGET_AVX2 ND_INLINE __m256i decayed_membrane_avx2(__m256i x, __m256i keep) {
    const __m256i magnitude = _mm256_abs_epi32(x);
    const __m256i low = _mm256_and_si256(magnitude, _mm256_set1_epi32(4095));
    const __m256i kept = _mm256_add_epi32(
        _mm256_madd_epi16(_mm256_srli_epi32(magnitude, 12), keep), _mm256_srli_epi32(_mm256_madd_epi16(low, keep), 12));
    return _mm256_sign_epi32(kept, x);
}

/* x divided by 2 'count' times, truncated toward zero; 'ones' is 2^count - 1. */
ND_TARGET_AVX2 ND_INLINE __m256i halved_avx2(__m256i x, __m128i count, __m256i ones) {
    const __m256i less = _mm256_and_si256(_mm256_srai_epi32(x, 31), ones);
    return _mm256_sra_epi32(_mm256_add_epi32(x, less), count);
}

/* As wrapped(). */
ND_TARGET_AVX2 ND_INLINE __m256i wrapped_avx2(__m256i x) {
    const __m256i unit = _mm256_set1_epi32(ND_LIMIT), twice = _mm256_set1_epi32(2 * ND_LIMIT);
    const __m256i over = _mm256_cmpgt_epi32(x, unit), within = _mm256_cmpgt_epi32(x, _mm256_set1_epi32(-ND_LIMIT));
    return _mm256_add_epi32(_mm256_sub_epi32(x, _mm256_and_si256(over, twice)), _mm256_andnot_si256(within, twice));
}

/* As fire_single_plain(), with currents that wrap around; without 'limits', neither register leaves its 24 bits. */
ND_TARGET_AVX2 ND_INLINE void fire_single_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, const int started,
    const int halving, const int limits) {
    const int channels = layer->channels, wraps = layer->wraps;
    const int64_t mask_bytes = ND_MASK_BYTES(channels);
    const __m256i top = _mm256_set1_epi32(ND_LIMIT - 1), bottom = _mm256_set1_epi32(1 - ND_LIMIT);
    const __m256i ones = _mm256_set1_epi32((1 << (layer->halvings & 15)) - 1);
    const __m128i halvings = _mm_cvtsi32_si128(layer->halvings);
    for (int first = 0; first < channels; first += ND_LANES) {
        __m256i keep[2], bias[2], threshold[2];
        for (int half = 0; half < 2; half++) {
            const int at = first + 8 * half;
            keep[half] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->v_keep + at));
            bias[half] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->bias + at));
            threshold[half] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->threshold + at));
        }
        uint8_t *mask = bits;
        for (int place = 0; place < places; place++) {
            __m256i fired[2];
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const int at = place * channels + first + 8 * half;
                const __m256i sum = _mm256_loadu_si256((const __m256i *)(const void *)(sums + at));
                __m256i x = _mm256_slli_epi32(sum, 6);
                if (limits && wraps) x = wrapped_avx2(x);
                x = _mm256_add_epi32(x, bias[half]);
                if (started) {
                    const __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(v + at));
                    const __m256i kept =
                        halving ? halved_avx2(before, halvings, ones) : decayed_membrane_avx2(before, keep[half]);
                    x = _mm256_add_epi32(x, kept);
                }
                if (limits) x = _mm256_max_epi32(_mm256_min_epi32(x, top), bottom);
                fired[half] = _mm256_cmpgt_epi32(x, threshold[half]);
                _mm256_storeu_si256((__m256i *)(void *)(v + at), _mm256_andnot_si256(fired[half], x));
            }
            const __m128i spikes = spikes_avx2(fired[0], fired[1]);
            _mm_storeu_si128((__m128i *)(void *)(out + place * channels + first), spikes);
            if (bits) {
                keep_bits(mask, first, (uint16_t)_mm_movemask_epi8(_mm_slli_epi16(spikes, 7)));
                mask += mask_bytes;
            }
        }
    }
}

ND_TARGET_AVX2 ND_INLINE void fire_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out,
    uint8_t *bits) {
    if (layer->levels == 1 && !layer->u_remembers) {
        const int limits = layer->clips || layer->wraps;
        if (!step && limits) fire_single_avx2(layer, sums, places, v, out, bits, 0, 0, 1);
        else if (!step) fire_single_avx2(layer, sums, places, v, out, bits, 0, 0, 0);
        else if (layer->halvings < 0) fire_single_avx2(layer, sums, places, v, out, bits, 1, 0, 1);
        else if (limits) fire_single_avx2(layer, sums, places, v, out, bits, 1, 1, 1);
        else fire_single_avx2(layer, sums, places, v, out, bits, 1, 1, 0);
        return;
    }
    fire_plain(layer, sums, places, step, u, v, out, 0);
    if (bits) pack_plain(out, places, layer->channels, bits);
}

ND_TARGET_AVX2 ND_INLINE void count_avx2(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    count_plain(layer, sums, places, out, 0);
    if (bits) pack_plain(out, places, layer->channels, bits);
}

/* Of every byte, the places of its bits, the lowest first; filled when the library is loaded. */
static uint8_t nd_bits[256][8];

__attribute__((constructor)) static void nd_fill_bits(void) {
    for (int byte = 0; byte < 256; byte++)
        for (int bit = 0, count = 0; bit < 8; bit++)
            if (byte >> bit & 1) nd_bits[byte][count++] = (uint8_t)bit;
}

/* As list_plain(), eight channels at a time and without branches; writes up to 8 entries too many. */
ND_TARGET_AVX2 ND_INLINE uint16_t *list_avx2(
    const uint8_t *masks, int inputs, unsigned first, unsigned entries, uint16_t *end) {
    const __m128i each = _mm_set1_epi16((short)entries), eight = _mm_set1_epi16((short)(8 * entries));
    __m128i here = _mm_set1_epi16((short)first);
    for (int byte = 0; byte < inputs / 8; byte++) {
        const __m128i bits = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)nd_bits[masks[byte]]));
        _mm_storeu_si128((__m128i *)(void *)end, _mm_add_epi16(here, _mm_mullo_epi16(bits, each)));
        end += __builtin_popcount(masks[byte]);
        here = _mm_add_epi16(here, eight);
    }
    return end;
}

#define ND_E(name) name##_avx2
#define ND_ATTRIBUTES ND_TARGET_AVX2
#define ND_NARROW 16
#define ND_WIDE 8
#define ND_LIST list_avx2
#include "events.h"
#include "count.h"
#include "tally.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_WIDE
#undef ND_LIST

#define tally_avx2(NAME) tally_##NAME##_avx2
ND_DEFINE_ROW(row_avx2, ND_TARGET_AVX2, term_avx2, events_avx2, count_avx2, fire_avx2, bits_kept, tally_avx2, ND_PIXELS)
