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

/* 32 bits of -1 where a neuron fired, of eight channels in each of the vectors, as bytes of 1, where 'out' is not 0, and as bits. */
ND_TARGET_AVX2 ND_INLINE uint32_t spikes_avx2(const __m256i *fired, uint8_t *out, const int vectors) {
    if (vectors == 4) {
        const __m256i parts = _mm256_packs_epi16(_mm256_packs_epi32(fired[0], fired[1]), _mm256_packs_epi32(fired[2], fired[3]));
        const __m256i bytes = _mm256_permutevar8x32_epi32(parts, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        if (out) _mm256_storeu_si256((__m256i *)(void *)out, _mm256_abs_epi8(bytes));
        return (uint32_t)_mm256_movemask_epi8(bytes);
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(fired[0], fired[1]), 0xD8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    if (out) _mm_storeu_si128((__m128i *)(void *)out, _mm_abs_epi8(bytes));
    return (uint32_t)_mm_movemask_epi8(bytes);
}

/* As decayed(), for |x| < 2^24: both factors of each product fit 16 bits. */
ND_TARGET_AVX2 ND_INLINE __m256i decayed_membrane_avx2(__m256i x, __m256i keep) {
    const __m256i magnitude = _mm256_abs_epi32(x);
    const __m256i low = _mm256_and_si256(magnitude, _mm256_set1_epi32(4095));
    const __m256i kept = _mm256_add_epi32(
        _mm256_madd_epi16(_mm256_srli_epi32(magnitude, 12), keep), _mm256_srli_epi32(_mm256_madd_epi16(low, keep), 12));
    return _mm256_sign_epi32(kept, x);
}

/* x divided by 2 'count' times, truncated toward zero; 'others' is 32 - count. */
ND_TARGET_AVX2 ND_INLINE __m256i halved_avx2(__m256i x, __m128i count, __m128i others) {
    const __m256i less = _mm256_srl_epi32(_mm256_srai_epi32(x, 31), others);
    return _mm256_sra_epi32(_mm256_add_epi32(x, less), count);
}

/* x / 2, truncated toward zero. */
ND_TARGET_AVX2 ND_INLINE __m256i half_avx2(__m256i x) {
    return _mm256_srai_epi32(_mm256_add_epi32(x, _mm256_srli_epi32(x, 31)), 1);
}

/* As wrapped(). */
ND_TARGET_AVX2 ND_INLINE __m256i wrapped_avx2(__m256i x, int32_t limit) {
    const __m256i unit = _mm256_set1_epi32(limit), twice = _mm256_set1_epi32(2 * limit);
    const __m256i over = _mm256_cmpgt_epi32(x, unit), within = _mm256_cmpgt_epi32(x, _mm256_set1_epi32(-limit));
    return _mm256_add_epi32(_mm256_sub_epi32(x, _mm256_and_si256(over, twice)), _mm256_andnot_si256(within, twice));
}

/* As keep_bits(), of 'vectors' times eight channels. */
ND_INLINE void keep_spikes(uint8_t *bits, int first, uint32_t spikes, const int vectors) {
    const uint64_t word = spikes;
    if (first % 64 == 0) memcpy(bits + first / 8, &word, sizeof word);
    else memcpy(bits + first / 8, &spikes, (size_t)vectors);
}

/* How a membrane is kept: by its factor, by shifts, by a single one, as it is, or not at all, because it is the first step. */
enum { ND_SCALED, ND_HALVED, ND_HALF, ND_WHOLE, ND_FRESH };

/* As fire_single_plain(), with currents that wrap around, of channels from 'first' on, eight in each of the vectors; without
 * 'limits', neither register leaves its 24 bits. */
ND_TARGET_AVX2 ND_INLINE void fire_channels_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, int first, const int vectors,
    const int keeps, const int limits) {
    const int channels = layer->channels, wraps = layer->wraps;
    const int64_t mask_bytes = ND_MASK_BYTES(channels);
    const __m256i top = _mm256_set1_epi32(ND_LIMIT - 1), bottom = _mm256_set1_epi32(1 - ND_LIMIT);
    const __m128i halvings = _mm_cvtsi32_si128(layer->halvings), others = _mm_cvtsi32_si128(32 - layer->halvings);
    __m256i keep[4], bias[4], threshold[4];
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
        keep[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->v_keep + first + 8 * k));
        bias[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->bias + first + 8 * k));
        threshold[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->threshold + first + 8 * k));
    }
    sums += first;
    v += first;
    for (int place = 0; place < places; place++, sums += channels, v += channels) {
        __m256i fired[4];
#pragma GCC unroll 4
        for (int k = 0; k < vectors; k++) {
            __m256i *membrane = (__m256i *)(void *)(v + 8 * k);
            __m256i x = _mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(sums + 8 * k)), 6);
            if (limits && wraps) x = wrapped_avx2(x, ND_LIMIT);
            x = _mm256_add_epi32(x, bias[k]);
            if (keeps != ND_FRESH) {
                const __m256i before = _mm256_loadu_si256(membrane);
                const __m256i kept = keeps == ND_WHOLE    ? before
                                     : keeps == ND_HALF   ? half_avx2(before)
                                     : keeps == ND_HALVED ? halved_avx2(before, halvings, others)
                                                          : decayed_membrane_avx2(before, keep[k]);
                x = _mm256_add_epi32(x, kept);
            }
            if (limits) x = _mm256_max_epi32(_mm256_min_epi32(x, top), bottom);
            fired[k] = _mm256_cmpgt_epi32(x, threshold[k]);
            _mm256_storeu_si256(membrane, _mm256_andnot_si256(fired[k], x));
        }
        const uint32_t spikes = spikes_avx2(fired, out ? out + (int64_t)place * channels + first : 0, vectors);
        if (bits) keep_spikes(bits + place * mask_bytes, first, spikes, vectors);
    }
}

ND_TARGET_AVX2 ND_INLINE void fire_single_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, const int keeps,
    const int limits) {
    int first = 0;
    for (; first + 2 * ND_LANES <= layer->channels; first += 2 * ND_LANES)
        fire_channels_avx2(layer, sums, places, v, out, bits, first, 4, keeps, limits);
    if (first < layer->channels) fire_channels_avx2(layer, sums, places, v, out, bits, first, 2, keeps, limits);
}

ND_TARGET_AVX2 ND_INLINE void fire_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out,
    uint8_t *bits) {
    if (layer->levels == 1 && !layer->u_remembers) {
        const int limits = layer->clips || layer->wraps;
        if (bits && layer->unread) out = 0;
        if (!step && limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_FRESH, 1);
        else if (!step) fire_single_avx2(layer, sums, places, v, out, bits, ND_FRESH, 0);
        else if (layer->halvings < 0) fire_single_avx2(layer, sums, places, v, out, bits, ND_SCALED, 1);
        else if (layer->halvings > 1) fire_single_avx2(layer, sums, places, v, out, bits, ND_HALVED, 1);
        else if (!layer->halvings && limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_WHOLE, 1);
        else if (!layer->halvings) fire_single_avx2(layer, sums, places, v, out, bits, ND_WHOLE, 0);
        else if (limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_HALF, 1);
        else fire_single_avx2(layer, sums, places, v, out, bits, ND_HALF, 0);
        return;
    }
    fire_plain(layer, sums, places, step, u, v, out, 0);
    if (bits) pack_plain(out, places, layer->channels, bits);
}

/* As count_plain(), of neurons with one level. */
ND_TARGET_AVX2 ND_INLINE void count_channels_avx2(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits, int first, const int vectors) {
    const int channels = layer->channels;
    for (int place = 0; place < places; place++) {
        __m256i fired[4];
#pragma GCC unroll 4
        for (int k = 0; k < vectors; k++) {
            const int at = first + 8 * k;
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(sums + place * channels + at));
            if (layer->wraps) x = wrapped_avx2(x, ND_LIMIT >> 6);
            fired[k] = _mm256_cmpgt_epi32(x, _mm256_loadu_si256((const __m256i *)(const void *)(layer->threshold + at)));
        }
        const uint32_t spikes = spikes_avx2(fired, out ? out + place * channels + first : 0, vectors);
        if (bits) keep_spikes(bits + place * ND_MASK_BYTES(channels), first, spikes, vectors);
    }
}

ND_TARGET_AVX2 ND_INLINE void count_avx2(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    if (layer->levels != 1) { /* such counts are never wanted as bits */
        count_plain(layer, sums, places, out, 0);
        return;
    }
    if (bits && layer->unread) out = 0;
    int first = 0;
    for (; first + 2 * ND_LANES <= layer->channels; first += 2 * ND_LANES)
        count_channels_avx2(layer, sums, places, out, bits, first, 4);
    if (first < layer->channels) count_channels_avx2(layer, sums, places, out, bits, first, 2);
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

/* 32 spikes that are bits, as bytes of -1. */
ND_TARGET_AVX2 ND_INLINE __m256i spread_avx2(const uint8_t *masks) {
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i from = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bits = _mm256_shuffle_epi8(_mm256_set1_epi32(four_bytes(masks)), from);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each);
}

/* Counts of 32 channels of one place, or of sixteen of two, over all steps. at: spikes of step 0 */
ND_TARGET_AVX2 ND_INLINE __m256i steps_of_bits(const nd_layer *layer, const nd_term *term, const uint8_t *at, const int two) {
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i of_one = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i of_two = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0808080808080808, 0x0909090909090909);
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int step = 0; step < layer->steps; step++, at += term->mask_step) {
        const __m256i bits = two ? _mm256_shuffle_epi8(
                                       _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)at)), of_two)
                                 : _mm256_shuffle_epi8(_mm256_set1_epi32(four_bytes(at)), of_one);
        sum = _mm256_sub_epi8(sum, _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each));
    }
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
