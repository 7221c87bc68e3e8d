/* The paths of x86: AVX2 in a file of its own, AVX-512 VNNI with and without VBMI2 here; part of kernel.c. */

#define ND_TARGET_AVX2 __attribute__((target("avx2,popcnt,bmi")))
#define ND_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,popcnt,bmi")))
#define ND_TARGET_VBMI2 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi2,avx2,popcnt,bmi")))

ND_INLINE int32_t four_bytes(const uint8_t *at) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Whether a row of taps lies in memory as one long tap. The end of a short loop costs as much as two of its rounds. */
ND_INLINE int taps_joined(const nd_term *term) {
    return term->column_dilation == 1 && 4 * (int64_t)term->groups == term->place_bytes;
}

/* Sixteen spikes as bits of a place's words, those of a word in order: the first ones clear what follows. */
ND_INLINE void keep_bits(uint8_t *bits, int first, uint16_t fired) {
    const uint64_t word = fired;
    if (first % 64) memcpy(bits + first / 8, &fired, sizeof fired);
    else memcpy(bits + first / 8, &word, sizeof word);
}

/* Bits that the neurons have written. */
ND_INLINE void bits_kept(const uint8_t *counts, int places, int channels, uint8_t *masks) {
    (void)counts, (void)places, (void)channels, (void)masks;
}

#include "avx2.h"

/* ---- AVX-512 VNNI: eight places by up to three times sixteen channels, sums in registers ---- */

/* Written out, because compilers spill the sums of the intrinsics to memory. */
#define ND_DOT(INSTRUCTION, SUM, X, W) __asm__(INSTRUCTION " %2, %1, %0" : "+v"(SUM) : "v"(X), "v"(W))

ND_TARGET_AVX512 ND_INLINE void term_avx512_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add,
    const int vectors, const int graded) {
    const int8_t *weights = (const int8_t *)term->weights + 4 * first;
    const int64_t place_bytes = term->place_bytes, next = term->next_place;
    __m512i total[ND_PIXELS][3];
#pragma GCC unroll 8
    for (int p = 0; p < ND_PIXELS; p++) {
#pragma GCC unroll 3
        for (int k = 0; k < vectors; k++) total[p][k] = _mm512_setzero_si512();
    }
    const int joined = taps_joined(term), columns = joined ? 1 : term->columns;
    const int groups = joined ? term->columns * term->groups : term->groups;
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < columns; column++) {
            const uint8_t *tap = source + (int64_t)row * term->row_dilation * term->row_bytes
                                 + (int64_t)column * term->column_dilation * place_bytes;
            for (int group = 0; group < groups; group++, tap += 4, weights += 4 * layer->channels) {
                __m512i w[3];
#pragma GCC unroll 3
                for (int k = 0; k < vectors; k++) w[k] = _mm512_loadu_si512(weights + 64 * k);
#pragma GCC unroll 8
                for (int p = 0; p < ND_PIXELS; p++) {
                    const __m512i x = _mm512_set1_epi32(four_bytes(tap + p * next));
#pragma GCC unroll 3
                    for (int k = 0; k < vectors; k++) {
                        if (graded) ND_DOT("vpdpwssd", total[p][k], x, w[k]);
                        else ND_DOT("vpdpbusd", total[p][k], x, w[k]);
                    }
                }
            }
        }
    }
    const __m128i shift = _mm_cvtsi32_si128(term->shift);
#pragma GCC unroll 8
    for (int p = 0; p < ND_PIXELS; p++) {
#pragma GCC unroll 3
        for (int k = 0; k < vectors; k++) {
            int32_t *at = sums + (int64_t)p * layer->channels + first + 16 * k;
            const __m512i sum = _mm512_sll_epi32(total[p][k], shift);
            _mm512_storeu_si512(at, add ? _mm512_add_epi32(_mm512_loadu_si512(at), sum) : sum);
        }
    }
}

ND_TARGET_AVX512 ND_INLINE void term_avx512(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    (void)places; /* those beyond the row are computed on what lies there, and never stored */
    const int vectors = layer->channels / ND_LANES;
    for (int done = 0; done < vectors;) {
        const int left = vectors - done, now = left == 4 ? 2 : left < 3 ? left : 3, first = done * ND_LANES;
        if (term->graded) {
            if (now == 3) term_avx512_block(layer, term, source, first, sums, add, 3, 1);
            else if (now == 2) term_avx512_block(layer, term, source, first, sums, add, 2, 1);
            else term_avx512_block(layer, term, source, first, sums, add, 1, 1);
        } else {
            if (now == 3) term_avx512_block(layer, term, source, first, sums, add, 3, 0);
            else if (now == 2) term_avx512_block(layer, term, source, first, sums, add, 2, 0);
            else term_avx512_block(layer, term, source, first, sums, add, 1, 0);
        }
        done += now;
    }
}

ND_TARGET_AVX512 ND_INLINE __m512i wrapped_avx512(__m512i x, __m512i unit) {
    const __m512i twice = _mm512_add_epi32(unit, unit);
    const __mmask16 over = _mm512_cmpgt_epi32_mask(x, unit);
    const __mmask16 under = _mm512_cmple_epi32_mask(x, _mm512_sub_epi32(_mm512_setzero_si512(), unit));
    x = _mm512_mask_sub_epi32(x, over, x, twice);
    return _mm512_mask_add_epi32(x, under, x, twice);
}

/* As count_plain(), of neurons with up to four levels, whose thresholds stay in registers. */
ND_TARGET_AVX512 ND_INLINE void count_few_avx512(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits, const int levels) {
    const int channels = layer->channels;
    const __m512i one = _mm512_set1_epi32(1), unit = _mm512_set1_epi32(ND_LIMIT >> 6);
    for (int first = 0; first < channels; first += ND_LANES) {
        __m512i threshold[4];
#pragma GCC unroll 4
        for (int level = 0; level < levels; level++)
            threshold[level] = _mm512_loadu_si512(layer->threshold + (int64_t)level * channels + first);
        for (int place = 0; place < places; place++) {
            __m512i current = _mm512_loadu_si512(sums + place * channels + first);
            if (layer->wraps) current = wrapped_avx512(current, unit);
            const __mmask16 fired = _mm512_cmpgt_epi32_mask(current, threshold[0]);
            __m512i count = _mm512_maskz_mov_epi32(fired, one);
            if (levels == 1 && bits) keep_bits(bits + place * ND_MASK_BYTES(channels), first, fired);
#pragma GCC unroll 4
            for (int level = 1; level < levels; level++)
                count = _mm512_mask_add_epi32(count, _mm512_cmpgt_epi32_mask(current, threshold[level]), count, one);
            _mm_storeu_si128((__m128i *)(void *)(out + place * channels + first), _mm512_cvtepi32_epi8(count));
        }
    }
}

ND_TARGET_AVX512 ND_INLINE void count_avx512(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    const int channels = layer->channels;
    if (layer->levels == 1) {
        count_few_avx512(layer, sums, places, out, bits, 1);
        return;
    }
    if (layer->levels == 4) {
        count_few_avx512(layer, sums, places, out, bits, 4);
        return;
    }
    const __m512i one = _mm512_set1_epi32(1), unit = _mm512_set1_epi32(ND_LIMIT >> 6);
    for (int first = 0; first < channels; first += ND_LANES) {
        for (int start = 0; start < places; start += 4) { /* whole fours: there is room */
            __m512i current[4], count[4];
#pragma GCC unroll 4
            for (int place = 0; place < 4; place++) {
                current[place] = _mm512_loadu_si512(sums + (start + place) * channels + first);
                if (layer->wraps) current[place] = wrapped_avx512(current[place], unit);
                count[place] = _mm512_setzero_si512();
            }
            for (int level = 0; level < layer->levels; level++) {
                const __m512i threshold = _mm512_loadu_si512(layer->threshold + (int64_t)level * channels + first);
#pragma GCC unroll 4
                for (int place = 0; place < 4; place++)
                    count[place] = _mm512_mask_add_epi32(
                        count[place], _mm512_cmpgt_epi32_mask(current[place], threshold), count[place], one);
            }
#pragma GCC unroll 4
            for (int place = 0; place < 4; place++)
                if (start + place < places)
                    _mm_storeu_si128((__m128i *)(void *)(out + (start + place) * channels + first), _mm512_cvtepi32_epi8(count[place]));
        }
    }
}

/* 'magnitude' with the sign of x. */
ND_TARGET_AVX512 ND_INLINE __m512i negated_where(__m512i x, __m512i magnitude) {
    const __m512i zero = _mm512_setzero_si512();
    return _mm512_mask_sub_epi32(magnitude, _mm512_cmplt_epi32_mask(x, zero), zero, magnitude);
}

/* As decayed(), for |x| < 2^24: both factors of each product fit 16 bits, where a multiplication is cheaper. */
ND_TARGET_AVX512 ND_INLINE __m512i decayed_membrane(__m512i x, __m512i keep) {
    const __m512i magnitude = _mm512_abs_epi32(x);
    const __m512i high = _mm512_srli_epi32(magnitude, 12);
    const __m512i low = _mm512_and_si512(magnitude, _mm512_set1_epi32(4095));
    const __m512i kept = _mm512_add_epi32(
        _mm512_madd_epi16(high, keep), _mm512_srli_epi32(_mm512_madd_epi16(low, keep), 12));
    return negated_where(x, kept);
}

ND_TARGET_AVX512 ND_INLINE __m512i decayed_current(__m512i x, __m512i keep) {
    const __m512i magnitude = _mm512_abs_epi32(x);
    const __m512i high = _mm512_srli_epi32(magnitude, 12);
    const __m512i low = _mm512_and_si512(magnitude, _mm512_set1_epi32(4095));
    const __m512i kept = _mm512_add_epi32(
        _mm512_mullo_epi32(high, keep), _mm512_srli_epi32(_mm512_madd_epi16(low, keep), 12));
    return negated_where(x, kept);
}

/* x divided by 2 'count' times, truncated toward zero; 'ones' is 2^count - 1. */
ND_TARGET_AVX512 ND_INLINE __m512i halved(__m512i x, __m512i count, __m512i ones) {
    const __mmask16 negative = _mm512_cmplt_epi32_mask(x, _mm512_setzero_si512());
    return _mm512_srav_epi32(_mm512_mask_add_epi32(x, negative, x, ones), count);
}

/* One population, a current that is forgotten after a step: the commonest neuron. Without 'limits', neither register leaves its
 * 24 bits. */
ND_TARGET_AVX512 ND_INLINE void fire_single_avx512(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, const int started,
    const int halving, const int limits) {
    const int channels = layer->channels, wraps = layer->wraps;
    const int64_t mask_bytes = ND_MASK_BYTES(channels);
    const __m512i unit = _mm512_set1_epi32(ND_LIMIT);
    const __m512i top = _mm512_set1_epi32(ND_LIMIT - 1), bottom = _mm512_set1_epi32(1 - ND_LIMIT);
    const __m512i halvings = _mm512_set1_epi32(layer->halvings), ones = _mm512_set1_epi32((1 << (layer->halvings & 15)) - 1);
    const __m128i one = _mm_set1_epi8(1);
    for (int first = 0; first < channels; first += ND_LANES) {
        const __m512i keep = _mm512_loadu_si512(layer->v_keep + first), bias = _mm512_loadu_si512(layer->bias + first);
        const __m512i threshold = _mm512_loadu_si512(layer->threshold + first);
        const int32_t *sum = sums + first;
        int32_t *membrane = v + first;
        uint8_t *spikes = out + first, *mask = bits;
        for (int place = 0; place < places; place++, sum += channels, membrane += channels, spikes += channels) {
            __m512i x = _mm512_slli_epi32(_mm512_loadu_si512(sum), 6);
            if (limits && wraps) x = wrapped_avx512(x, unit);
            x = _mm512_add_epi32(x, bias);
            if (started) {
                const __m512i before = _mm512_loadu_si512(membrane);
                x = _mm512_add_epi32(x, halving ? halved(before, halvings, ones) : decayed_membrane(before, keep));
            }
            if (limits) x = _mm512_max_epi32(_mm512_min_epi32(x, top), bottom);
            const __mmask16 fired = _mm512_cmpgt_epi32_mask(x, threshold);
            _mm512_storeu_si512(membrane, _mm512_maskz_mov_epi32((__mmask16)~fired, x));
            _mm_storeu_si128((__m128i *)(void *)spikes, _mm_maskz_mov_epi8(fired, one));
            if (bits) {
                keep_bits(mask, first, fired);
                mask += mask_bytes;
            }
        }
    }
}

ND_TARGET_AVX512 ND_INLINE void fire_avx512(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out,
    uint8_t *bits) {
    if (layer->levels == 1 && !layer->u_remembers) {
        const int halving = layer->halvings >= 0, limits = layer->clips || layer->wraps;
        if (!step && limits) fire_single_avx512(layer, sums, places, v, out, bits, 0, 0, 1);
        else if (!step) fire_single_avx512(layer, sums, places, v, out, bits, 0, 0, 0);
        else if (halving && limits) fire_single_avx512(layer, sums, places, v, out, bits, 1, 1, 1);
        else if (halving) fire_single_avx512(layer, sums, places, v, out, bits, 1, 1, 0);
        else fire_single_avx512(layer, sums, places, v, out, bits, 1, 0, 1);
        return;
    }
    const int channels = layer->channels, levels = layer->levels;
    const __m512i one = _mm512_set1_epi32(1), unit = _mm512_set1_epi32(ND_LIMIT);
    const __m512i top = _mm512_set1_epi32(ND_LIMIT - 1), bottom = _mm512_set1_epi32(1 - ND_LIMIT);
    for (int place = 0; place < places; place++, sums += channels, u += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            __m512i current = _mm512_slli_epi32(_mm512_loadu_si512(sums + first), 6), count = _mm512_setzero_si512();
            if (step && layer->u_remembers) {
                const __m512i keep = _mm512_loadu_si512(layer->u_keep + first);
                current = _mm512_add_epi32(current, decayed_current(_mm512_loadu_si512(u + first), keep));
            }
            if (layer->wraps) current = wrapped_avx512(current, unit);
            if (layer->u_remembers) _mm512_storeu_si512(u + first, current);
            const __m512i keep = _mm512_loadu_si512(layer->v_keep + first);
            const __m512i threshold = _mm512_loadu_si512(layer->threshold + first);
            for (int level = 0; level < levels; level++) {
                int32_t *membrane = v + ((int64_t)place * levels + level) * channels + first;
                const __m512i bias = _mm512_loadu_si512(layer->bias + (int64_t)level * channels + first);
                __m512i x = _mm512_add_epi32(current, bias);
                if (step) x = _mm512_add_epi32(x, decayed_membrane(_mm512_loadu_si512(membrane), keep));
                x = _mm512_max_epi32(_mm512_min_epi32(x, top), bottom);
                const __mmask16 fired = _mm512_cmpgt_epi32_mask(x, threshold);
                _mm512_storeu_si512(membrane, _mm512_maskz_mov_epi32((__mmask16)~fired, x));
                count = _mm512_mask_add_epi32(count, fired, count, one);
                if (bits) keep_bits(bits + place * ND_MASK_BYTES(channels), first, fired); /* there is one level */
            }
            _mm_storeu_si128((__m128i *)(void *)(out + first), _mm512_cvtepi32_epi8(count));
        }
    }
}

ND_TARGET_AVX512 ND_INLINE void widen_sixteen(__m256i narrow, int32_t *sums, int shift, int add) {
    const __m512i sum = _mm512_sll_epi32(_mm512_cvtepi16_epi32(narrow), _mm_cvtsi32_si128(shift));
    _mm512_storeu_si512(sums, add ? _mm512_add_epi32(_mm512_loadu_si512(sums), sum) : sum);
}

#define widen_half(VECTOR, SUMS, SHIFT, ADD) widen_sixteen((__m256i)(VECTOR), SUMS, SHIFT, ADD)
#define widen_full(VECTOR, SUMS, SHIFT, ADD)                                                              \
    do {                                                                                                  \
        widen_sixteen(_mm512_castsi512_si256((__m512i)(VECTOR)), SUMS, SHIFT, ADD);                       \
        widen_sixteen(_mm512_extracti64x4_epi64((__m512i)(VECTOR), 1), (SUMS) + ND_LANES, SHIFT, ADD);    \
    } while (0)

#include "tally_avx512.h"

#define ND_E(name) name##_avx512_half
#define ND_SUMS sums_avx512
#define ND_BLOCK
#define ND_WIDEN widen_half
#define ND_ATTRIBUTES ND_TARGET_AVX512
#define ND_NARROW 16
#define ND_WIDE 16
#define ND_LIST list_plain
#include "events.h"
#include "count.h"
#include "tally.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_LIST
#undef ND_WIDE
#undef ND_BLOCK
#undef ND_WIDEN

#define ND_E(name) name##_avx512_full
#define ND_BLOCK
#define ND_WIDEN widen_full
#define ND_ATTRIBUTES ND_TARGET_AVX512
#define ND_NARROW 32
#define ND_WIDE 16
#define ND_LIST list_plain
#include "events.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_LIST
#undef ND_WIDE
#undef ND_BLOCK
#undef ND_WIDEN

ND_TARGET_AVX512 ND_INLINE void events_avx512(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few,
    int16_t *narrow, uint16_t *list) {
    if (term->narrow && term->columns == 3 && term->column_dilation == 1) {
        if (layer->channels % 32) events_block_avx512_half(layer, term, masks, sums, add, list);
        else events_block_avx512_full(layer, term, masks, sums, add, list);
    } else if (layer->channels % 32) events_avx512_half(layer, term, masks, sums, places, add, few, narrow, list);
    else events_avx512_full(layer, term, masks, sums, places, add, few, narrow, list);
}

#define tally_avx512(NAME) tally_##NAME##_avx512_half
ND_DEFINE_ROW(row_avx512, ND_TARGET_AVX512, term_avx512, add_steps, events_avx512, count_avx512, fire_avx512, bits_kept, tally_avx512, ND_PIXELS)

/* As list_plain(), 32 channels at a time and without branches; writes up to 32 entries too many. */
ND_TARGET_VBMI2 ND_INLINE uint16_t *list_vbmi2(
    const uint8_t *masks, int inputs, unsigned first, unsigned entries, uint16_t *end) {
    const __m512i counted = _mm512_cvtepu8_epi16(_mm256_setr_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31));
    const __m512i lanes = _mm512_mullo_epi16(counted, _mm512_set1_epi16((short)entries));
    for (int start = 0; start < inputs; start += 32, masks += 4) {
        uint32_t mask;
        memcpy(&mask, masks, sizeof mask);
        const __m512i here = _mm512_add_epi16(lanes, _mm512_set1_epi16((short)(first + (unsigned)start * entries)));
        _mm512_storeu_si512(end, _mm512_maskz_compress_epi16(mask, here));
        end += __builtin_popcount(mask);
    }
    return end;
}

#define ND_E(name) name##_vbmi2_half
#define ND_BLOCK
#define ND_WIDEN widen_half
#define ND_ATTRIBUTES ND_TARGET_VBMI2
#define ND_NARROW 16
#define ND_WIDE 16
#define ND_LIST list_vbmi2
#include "events.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_LIST
#undef ND_WIDE
#undef ND_BLOCK
#undef ND_WIDEN

#define ND_E(name) name##_vbmi2_full
#define ND_BLOCK
#define ND_WIDEN widen_full
#define ND_ATTRIBUTES ND_TARGET_VBMI2
#define ND_NARROW 32
#define ND_WIDE 16
#define ND_LIST list_vbmi2
#include "events.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_LIST
#undef ND_WIDE
#undef ND_BLOCK
#undef ND_WIDEN

ND_TARGET_VBMI2 ND_INLINE void events_vbmi2(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few,
    int16_t *narrow, uint16_t *list) {
    if (term->narrow && term->columns == 3 && term->column_dilation == 1) {
        if (layer->channels % 32) events_block_vbmi2_half(layer, term, masks, sums, add, list);
        else events_block_vbmi2_full(layer, term, masks, sums, add, list);
    } else if (layer->channels % 32) events_vbmi2_half(layer, term, masks, sums, places, add, few, narrow, list);
    else events_vbmi2_full(layer, term, masks, sums, places, add, few, narrow, list);
}

ND_DEFINE_ROW(row_vbmi2, ND_TARGET_VBMI2, term_avx512, add_steps, events_vbmi2, count_avx512, fire_avx512, bits_kept, tally_avx512, ND_PIXELS)
