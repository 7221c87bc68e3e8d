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

/* Few outputs: the inputs lie side by side in a vector, not the outputs. What a row of the kernel reads is one long tap. */
ND_TARGET_AVX2 ND_INLINE void thin_avx2(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add, const int outputs) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int vectors = (int)((term->columns * term->place_bytes + 31) / 32);
    for (int place = 0; place < places; place++, source += term->next_place, sums += layer->channels) {
        const __m256i *weights = (const __m256i *)term->weights;
        __m256i total[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int row = 0; row < term->rows; row++) {
            const uint8_t *tap = source + (int64_t)row * term->row_dilation * term->row_bytes;
            for (int vector = 0; vector < vectors; vector++, tap += 32) {
                const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)tap);
#pragma GCC unroll 4
                for (int output = 0; output < outputs; output++) {
                    /* two products of counts up to 120 fit 16 bits */
                    const __m256i pairs = _mm256_maddubs_epi16(x, _mm256_load_si256(weights++));
                    total[output] = _mm256_add_epi32(total[output], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(total[0], total[1]), _mm256_hadd_epi32(total[2], total[3]));
        const __m128i sum = _mm_slli_epi32(
            _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)), term->shift);
        __m128i *at = (__m128i *)(void *)sums;
        _mm_storeu_si128(at, add ? _mm_add_epi32(_mm_loadu_si128(at), sum) : sum);
        for (int rest = 1; !add && rest < layer->channels / 4; rest++) _mm_storeu_si128(at + rest, _mm_setzero_si128());
    }
}

ND_TARGET_AVX2 ND_INLINE void term_avx2(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    if (term->thin) {
        if (term->thin == 1) thin_avx2(layer, term, source, sums, places, add, 1);
        else if (term->thin == 2) thin_avx2(layer, term, source, sums, places, add, 2);
        else if (term->thin == 3) thin_avx2(layer, term, source, sums, places, add, 3);
        else thin_avx2(layer, term, source, sums, places, add, 4);
        return;
    }
    for (int start = 0; start < places; start += 4, source += 4 * term->next_place, sums += 4 * layer->channels) {
        for (int first = 0; first < layer->channels; first += ND_LANES) {
            if (term->graded) term_avx2_block(layer, term, source, first, sums, add, 1);
            else term_avx2_block(layer, term, source, first, sums, add, 0);
        }
    }
}

#include "neurons_avx2.h"

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

#include "scan.h"

/* As add_alone(), of spikes that are bits. */
ND_TARGET_AVX2 ND_INLINE void alone_in_bits(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add) {
    const int channels = layer->channels;
    const __m256i lowest = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (int place = 0; place < places; place++, masks += term->mask_place, sums += channels) {
        for (int first = 0; first < channels; first += 8) {
            const __m256i spikes = _mm256_and_si256(_mm256_set1_epi32(masks[first / 8]), lowest);
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)(term->alone + first));
            const __m256i sum = _mm256_and_si256(_mm256_cmpeq_epi32(spikes, lowest), weights);
            __m256i *at = (__m256i *)(void *)(sums + first);
            _mm256_storeu_si256(at, add ? _mm256_add_epi32(_mm256_loadu_si256(at), sum) : sum);
        }
    }
}

/* Bits as bytes of -1: every byte has a copy of the one that its bit is in. */
ND_TARGET_AVX2 ND_INLINE __m256i bits_spread(__m256i copies) {
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201u);
    return _mm256_cmpeq_epi8(_mm256_and_si256(copies, each), each);
}

/* 32 spikes that are bits, as bytes of -1. */
ND_TARGET_AVX2 ND_INLINE __m256i spread_avx2(const uint8_t *masks) {
    const __m256i from = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    return bits_spread(_mm256_shuffle_epi8(_mm256_set1_epi32(four_bytes(masks)), from));
}

/* Sixteen of one place and sixteen of the next one, whose words are neighbours. */
ND_TARGET_AVX2 ND_INLINE __m256i spread_two_avx2(const uint8_t *masks) {
    const __m256i from = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0808080808080808, 0x0909090909090909);
    return bits_spread(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)masks)), from));
}

/* Counts of 32 channels of one place, or of sixteen of two, over all steps. at: spikes of step 0 */
ND_TARGET_AVX2 ND_INLINE __m256i steps_of_bits(const nd_layer *layer, const nd_term *term, const uint8_t *at, const int two) {
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int step = 0; step < layer->steps; step++, at += term->mask_step)
        sum = _mm256_sub_epi8(sum, two ? spread_two_avx2(at) : spread_avx2(at));
    return sum;
}

/* As add_steps(), of spikes that may be bits; behind the sums there is room. */
ND_TARGET_AVX2 ND_INLINE void add_steps_avx2(
    const nd_layer *layer, const nd_term *term, const nd_term *read, const uint8_t *source, int first_row, int first_column,
    uint8_t *sums) {
    if (!term->bits) {
        add_steps(layer, term, read, source, first_row, first_column, sums);
        return;
    }
    const int64_t channels = term->place_bytes;
    for (int row = 0; row < term->rows; row++, sums += read->row_bytes) {
        const uint8_t *line = term->masks + (first_row + row * term->row_dilation) * term->mask_row + first_column * term->mask_place;
        if (channels == ND_LANES) {
            for (int64_t at = 0; at < read->row_bytes; at += 2 * ND_LANES, line += 2 * term->mask_place)
                _mm256_storeu_si256((__m256i *)(void *)(sums + at), steps_of_bits(layer, term, line, 1));
            continue;
        }
        for (int64_t at = 0; at < read->row_bytes; at += channels, line += term->mask_place) {
            for (int first = 0; first < channels; first += 2 * ND_LANES)
                _mm256_storeu_si256((__m256i *)(void *)(sums + at + first), steps_of_bits(layer, term, line + first / 8, 0));
        }
    }
}

/* As row_sums(), of spikes that are bits. */
ND_TARGET_AVX2 ND_INLINE int64_t mask_sums_avx2(
    const nd_layer *layer, const uint8_t *masks, int places, uint8_t *marks, int64_t mark_step, uint32_t *by_channel,
    int64_t *spikes) {
    const int channels = layer->channels, steps = layer->steps, most = 255, bytes = ND_MASK_BYTES(channels);
    int64_t ever = 0;
    for (int step = 0; step < steps; step++) {
        const uint8_t *at = masks + step * layer->mask_step;
        for (int first = 0; first < channels; first += 2 * ND_LANES) {
            for (int start = 0; start < places; start += most) {
                const int end = places - start < most ? places : start + most;
                __m256i sum = _mm256_setzero_si256();
                for (int place = start; place < end; place++)
                    sum = _mm256_sub_epi8(sum, spread_avx2(at + (int64_t)place * bytes + first / 8));
                widen(by_channel + first, (nd_bytes)_mm256_castsi256_si128(sum));
                if (channels - first > ND_LANES) widen(by_channel + first + ND_LANES, (nd_bytes)_mm256_extracti128_si256(sum, 1));
            }
        }
        int64_t total = 0;
        memset(marks + step * mark_step, 0, (size_t)(places + 7) / 8);
        for (int place = 0; place < places; place++) {
            uint64_t some = 0;
            for (int byte = 0; byte < bytes; byte += 8) {
                const uint64_t word = mask_at(at + (int64_t)place * bytes + byte);
                some |= word;
                total += __builtin_popcountll(word);
            }
            marks[step * mark_step + place / 8] |= (uint8_t)((some != 0) << place % 8);
        }
        spikes[step] = total;
    }
    for (int64_t at = 0; at < (int64_t)places * bytes; at += 8) {
        uint64_t word = mask_at(masks + at);
        for (int step = 1; step < steps; step++) word |= mask_at(masks + at + step * layer->mask_step);
        ever += __builtin_popcountll(word);
    }
    return ever;
}

#define ND_MASK_SUMS mask_sums_avx2
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

ND_TARGET_AVX2 ND_INLINE void spikes_under(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few,
    int16_t *narrow, uint16_t *list) {
    if (term->alone) alone_in_bits(layer, term, masks, sums, places, add);
    else if (term->joined) spikes_under_three(layer, term, masks, sums, places, add, few, narrow);
    else events_avx2(layer, term, masks, sums, places, add, few, narrow, list);
}

#define tally_avx2(NAME) tally_##NAME##_avx2
ND_DEFINE_ROW(row_avx2, ND_TARGET_AVX2, term_avx2, add_steps_avx2, spikes_under, count_avx2, fire_avx2, bits_kept, tally_avx2, ND_BLOCK_MOST)
