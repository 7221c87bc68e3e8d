/* The paths of 64-bit ARM: NEON, which every such machine has, and NEON with products of int8 (FEAT_DotProd, FEAT_I8MM).
 * Part of kernel.c.
 *
 * Counts are at most 120, so they are int8 as well as uint8, and products of two int8 serve for them. Weights behind graded codes
 * lie as on the plain path; those behind counts as
 *
 *   neon     int8 [row][column][input][channels]
 *   dotprod  int8 [row][column][group][channels][4]
 *   i8mm     int8 [row][column][group][channels][8]
 *
 * The event form, neurons and counting are the same on the three.
 */

#if !defined(ND_WITHOUT_DOT) && (defined(__clang__) || __GNUC__ >= 10)
#define ND_DOTS 1
#ifdef __linux__
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

ND_INLINE void store_sums(int32x4_t sum, int32_t *at, int add) { vst1q_s32(at, add ? vaddq_s32(vld1q_s32(at), sum) : sum); }

/* ---- codes of 16 bits: four places by sixteen channels ---- */

ND_INLINE void graded_neon(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add) {
    const int16_t *weights = (const int16_t *)term->weights + first;
    int32x4_t total[4][4];
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) total[p][0] = total[p][1] = total[p][2] = total[p][3] = vdupq_n_s32(0);
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < term->columns; column++) {
            const uint8_t *tap = source + (int64_t)row * term->row_dilation * term->row_bytes
                                 + (int64_t)column * term->column_dilation * term->place_bytes;
            for (int input = 0; input < term->groups; input++, tap += 2, weights += layer->channels) {
                const int16x8_t low = vld1q_s16(weights), high = vld1q_s16(weights + 8);
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++) {
                    const int16x8_t x = vld1q_dup_s16((const int16_t *)(const void *)(tap + p * term->next_place));
                    total[p][0] = vmlal_s16(total[p][0], vget_low_s16(low), vget_low_s16(x));
                    total[p][1] = vmlal_high_s16(total[p][1], low, x);
                    total[p][2] = vmlal_s16(total[p][2], vget_low_s16(high), vget_low_s16(x));
                    total[p][3] = vmlal_high_s16(total[p][3], high, x);
                }
            }
        }
    }
    const int32x4_t shift = vdupq_n_s32(term->shift);
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            store_sums(vshlq_s32(total[p][k], shift), sums + (int64_t)p * layer->channels + first + 4 * k, add);
    }
}

ND_INLINE void codes_neon(const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    for (int start = 0; start < places; start += 4, source += 4 * term->next_place, sums += 4 * layer->channels)
        for (int first = 0; first < layer->channels; first += ND_LANES) graded_neon(layer, term, source, first, sums, add);
}

/* ---- counts without dot products: eight places by sixteen channels, sums in int16 lanes for as long as they fit ---- */

/* Written out, because compilers take the byte through another register; but the sanitizer does not look into it. */
#ifdef __SANITIZE_ADDRESS__
#define ND_SPREAD(TO, FROM) TO = vld1q_dup_s8(FROM)
#else
#define ND_SPREAD(TO, FROM) __asm__("ld1r {%0.16b}, %1" : "=w"(TO) : "Q"(*(FROM)))
#endif

ND_INLINE void term_neon_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add) {
    const int8_t *weights = (const int8_t *)term->weights + first;
    const int32x4_t shift = vdupq_n_s32(term->shift);
    int16x8_t low[ND_PIXELS], high[ND_PIXELS];
#pragma GCC unroll 8
    for (int p = 0; p < ND_PIXELS; p++) low[p] = high[p] = vdupq_n_s16(0);
    int left = term->run;
    int64_t to_come = (int64_t)term->rows * term->columns * term->groups;
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < term->columns; column++) {
            const int8_t *tap = (const int8_t *)source + (int64_t)row * term->row_dilation * term->row_bytes
                                + (int64_t)column * term->column_dilation * term->place_bytes;
            for (int input = 0; input < term->groups; input++, tap++, weights += layer->channels) {
                const int8x16_t w = vld1q_s8(weights);
#pragma GCC unroll 8
                for (int p = 0; p < ND_PIXELS; p++) {
                    int8x16_t x;
                    ND_SPREAD(x, tap + p * term->next_place);
                    low[p] = vmlal_s8(low[p], vget_low_s8(w), vget_low_s8(x));
                    high[p] = vmlal_high_s8(high[p], w, x);
                }
                left--;
                to_come--;
                if (left && to_come) continue;
                left = term->run;
#pragma GCC unroll 8
                for (int p = 0; p < ND_PIXELS; p++) {
                    int32_t *at = sums + (int64_t)p * layer->channels + first;
                    store_sums(vshlq_s32(vmovl_s16(vget_low_s16(low[p])), shift), at, add);
                    store_sums(vshlq_s32(vmovl_high_s16(low[p]), shift), at + 4, add);
                    store_sums(vshlq_s32(vmovl_s16(vget_low_s16(high[p])), shift), at + 8, add);
                    store_sums(vshlq_s32(vmovl_high_s16(high[p]), shift), at + 12, add);
                    low[p] = high[p] = vdupq_n_s16(0);
                }
                add = 1;
            }
        }
    }
}

ND_INLINE void term_neon(const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    if (term->graded) codes_neon(layer, term, source, sums, places, add);
    else for (int first = 0; first < layer->channels; first += ND_LANES) term_neon_block(layer, term, source, first, sums, add);
}

/* ---- the neuron ---- */

/* As decayed(), for |x| < 2^24: twice the upper half of |x| 2^7 times keep 2^12 is |x| keep 2^-12, cut off. 'keep' comes shifted. */
ND_INLINE int32x4_t membrane_neon(int32x4_t x, int32x4_t keep) {
    const int32x4_t kept = vqdmulhq_s32(vshlq_n_s32(vabsq_s32(x), 7), keep), sign = vshrq_n_s32(x, 31);
    return vsubq_s32(veorq_s32(kept, sign), sign);
}

/* As decayed(), for |x| < 2^30. */
ND_INLINE int32x4_t current_neon(int32x4_t x, int32x4_t keep) {
    const int32x4_t magnitude = vabsq_s32(x), sign = vshrq_n_s32(x, 31);
    const int32x4_t low = vmulq_s32(vandq_s32(magnitude, vdupq_n_s32(4095)), keep);
    const int32x4_t kept = vmlaq_s32(vshrq_n_s32(low, 12), vshrq_n_s32(magnitude, 12), keep);
    return vsubq_s32(veorq_s32(kept, sign), sign);
}

/* x divided by 2 'count' times, truncated toward zero. */
ND_INLINE int32x4_t halved_neon(int32x4_t x, int count) {
    const uint32x4_t ones = vshlq_u32(vreinterpretq_u32_s32(vshrq_n_s32(x, 31)), vdupq_n_s32(count - 32));
    return vshlq_s32(vaddq_s32(x, vreinterpretq_s32_u32(ones)), vdupq_n_s32(-count));
}

ND_INLINE int32x4_t wrapped_neon(int32x4_t x, int32_t unit) {
    const int32x4_t over = vreinterpretq_s32_u32(vcgtq_s32(x, vdupq_n_s32(unit)));
    const int32x4_t under = vreinterpretq_s32_u32(vcleq_s32(x, vdupq_n_s32(-unit)));
    const int32x4_t twice = vdupq_n_s32(2 * unit);
    return vaddq_s32(vsubq_s32(x, vandq_s32(over, twice)), vandq_s32(under, twice));
}

ND_INLINE int32x4_t clipped_neon(int32x4_t x) {
    return vmaxq_s32(vminq_s32(x, vdupq_n_s32(ND_LIMIT - 1)), vdupq_n_s32(1 - ND_LIMIT));
}

/* Sixteen counts as bytes. */
ND_INLINE void store_counts(const uint32x4_t *counts, uint8_t *out) {
    const uint16x8_t low = vmovn_high_u32(vmovn_u32(counts[0]), counts[1]);
    const uint16x8_t high = vmovn_high_u32(vmovn_u32(counts[2]), counts[3]);
    vst1q_u8(out, vmovn_high_u16(vmovn_u16(low), high));
}

ND_INLINE void count_neon(const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    (void)bits; /* see pack_neon() */
    const int channels = layer->channels;
    for (int place = 0; place < places; place++, sums += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            uint32x4_t count[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                int32x4_t current = vld1q_s32(sums + first + 4 * k);
                if (layer->wraps) current = wrapped_neon(current, ND_LIMIT >> 6);
                count[k] = vdupq_n_u32(0);
                for (int level = 0; level < layer->levels; level++) {
                    const int32x4_t threshold = vld1q_s32(layer->threshold + (int64_t)level * channels + first + 4 * k);
                    count[k] = vsubq_u32(count[k], vcgtq_s32(current, threshold));
                }
            }
            store_counts(count, out + first);
        }
    }
}

/* One population, a current that is forgotten after a step and stays inside its register: the commonest neuron. */
ND_INLINE void fire_single_neon(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, const int started, const int halving) {
    const int channels = layer->channels, halvings = layer->halvings;
    for (int first = 0; first < channels; first += ND_LANES) {
        int32x4_t keep[4], bias[4], threshold[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            keep[k] = vshlq_n_s32(vld1q_s32(layer->v_keep + first + 4 * k), 12);
            bias[k] = vld1q_s32(layer->bias + first + 4 * k);
            threshold[k] = vld1q_s32(layer->threshold + first + 4 * k);
        }
        for (int place = 0; place < places; place++) {
            const int32_t *sum = sums + place * channels + first;
            int32_t *membrane = v + place * channels + first;
            uint32x4_t fired[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                int32x4_t x = vaddq_s32(vshlq_n_s32(vld1q_s32(sum + 4 * k), 6), bias[k]);
                if (started) {
                    const int32x4_t before = vld1q_s32(membrane + 4 * k);
                    x = vaddq_s32(x, halving ? halved_neon(before, halvings) : membrane_neon(before, keep[k]));
                }
                x = clipped_neon(x);
                const uint32x4_t above = vcgtq_s32(x, threshold[k]);
                vst1q_s32(membrane + 4 * k, vbicq_s32(x, vreinterpretq_s32_u32(above)));
                fired[k] = vshrq_n_u32(above, 31);
            }
            store_counts(fired, out + place * channels + first);
        }
    }
}

ND_INLINE void fire_neon(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out, uint8_t *bits) {
    (void)bits; /* see pack_neon() */
    if (layer->levels == 1 && !layer->u_remembers && !layer->wraps) {
        if (!step) fire_single_neon(layer, sums, places, v, out, 0, 0);
        else if (layer->halvings >= 0) fire_single_neon(layer, sums, places, v, out, 1, 1);
        else fire_single_neon(layer, sums, places, v, out, 1, 0);
        return;
    }
    const int channels = layer->channels, levels = layer->levels;
    for (int place = 0; place < places; place++, sums += channels, u += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            uint32x4_t count[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const int at = first + 4 * k;
                int32x4_t current = vshlq_n_s32(vld1q_s32(sums + at), 6);
                if (step && layer->u_remembers)
                    current = vaddq_s32(current, current_neon(vld1q_s32(u + at), vld1q_s32(layer->u_keep + at)));
                if (layer->wraps) current = wrapped_neon(current, ND_LIMIT);
                if (layer->u_remembers) vst1q_s32(u + at, current);
                const int32x4_t keep = vshlq_n_s32(vld1q_s32(layer->v_keep + at), 12);
                const int32x4_t threshold = vld1q_s32(layer->threshold + at);
                count[k] = vdupq_n_u32(0);
                for (int level = 0; level < levels; level++) {
                    int32_t *membrane = v + ((int64_t)place * levels + level) * channels + at;
                    int32x4_t x = vaddq_s32(current, vld1q_s32(layer->bias + (int64_t)level * channels + at));
                    if (step) x = vaddq_s32(x, membrane_neon(vld1q_s32(membrane), keep));
                    x = clipped_neon(x);
                    const uint32x4_t above = vcgtq_s32(x, threshold);
                    vst1q_s32(membrane, vbicq_s32(x, vreinterpretq_s32_u32(above)));
                    count[k] = vsubq_u32(count[k], above);
                }
            }
            store_counts(count, out + first);
        }
    }
}

/* Counts that are 0 or 1, as bits: each byte gets the weight of its place among eight, and neighbours are added up. */
ND_INLINE void pack_neon(const uint8_t *counts, int places, int channels, uint8_t *masks) {
    const uint8x16_t weights = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    for (int place = 0; place < places; place++, counts += channels, masks += ND_MASK_BYTES(channels)) {
        for (int first = 0; first < channels; first += 64) {
            uint8x16_t bits[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const int at = first + ND_LANES * k;
                bits[k] = at < channels ? vmulq_u8(vld1q_u8(counts + at), weights) : vdupq_n_u8(0);
            }
            const uint8x16_t fours = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
            vst1_u8(masks + first / 8, vget_low_u8(vpaddq_u8(fours, fours)));
        }
    }
}

/* ---- the event form ---- */

ND_INLINE void widen_eight(int16x8_t narrow, int32_t *sums, int count, int add) {
    const int32x4_t shift = vdupq_n_s32(count);
    store_sums(vshlq_s32(vmovl_s16(vget_low_s16(narrow)), shift), sums, add);
    store_sums(vshlq_s32(vmovl_high_s16(narrow), shift), sums + 4, add);
}

#define widen_neon(VECTOR, SUMS, SHIFT, ADD) widen_eight((int16x8_t)(VECTOR), SUMS, SHIFT, ADD)

#define ND_E(name) name##_neon_wise
#define ND_BLOCK
#define ND_WIDEN widen_neon
#define ND_ATTRIBUTES
#define ND_NARROW 8
#define ND_WIDE 4
#define ND_LIST list_plain
#include "events.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_LIST
#undef ND_WIDE
#undef ND_BLOCK
#undef ND_WIDEN

ND_INLINE void events_neon(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few,
    int16_t *narrow, uint16_t *list) {
    if (term->narrow && term->columns == 3 && term->column_dilation == 1)
        events_block_neon_wise(layer, term, masks, sums, add, list);
    else events_neon_wise(layer, term, masks, sums, places, add, few, narrow, list);
}

ND_DEFINE_ROW(row_neon, , term_neon, add_steps, events_neon, count_neon, fire_neon, pack_neon, tally_plain, ND_PIXELS)

#ifdef ND_DOTS
#include "dots.h"
#endif

/* ---- what the machine has ---- */

#if defined(ND_DOTS) && defined(__APPLE__)
static int has_arm(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, 0, 0) == 0 && value != 0;
}
#endif

static int arm_paths(void) {
    int found = ND_NEON;
#if defined(ND_DOTS) && defined(__linux__)
    const unsigned long dots = 1ul << 20, products = 1ul << 13; /* HWCAP_ASIMDDP, HWCAP2_I8MM */
    if (getauxval(AT_HWCAP) & dots) {
        found |= ND_DOTPROD;
        if (getauxval(AT_HWCAP2) & products) found |= ND_I8MM;
    }
#elif defined(ND_DOTS) && defined(__APPLE__)
    found |= ND_DOTPROD; /* since the first of these machines */
    if (has_arm("hw.optional.arm.FEAT_I8MM")) found |= ND_I8MM;
#endif
    return found;
}
