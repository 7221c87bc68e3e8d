/* Products of int8 on 64-bit ARM: FEAT_DotProd and FEAT_I8MM, see neon.h. Part of kernel.c.
 *
 * Only the dense form of sources of counts is different from the path without.
 */

/* Older compilers declare the intrinsics only where the whole file is for such a machine: the instructions are written out. */
#ifdef __clang__
#define ND_TARGET_DOT __attribute__((target("dotprod")))
#define ND_TARGET_I8MM __attribute__((target("dotprod,i8mm")))
#else
#define ND_TARGET_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#define ND_TARGET_I8MM __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif
#define ND_SDOT(SUM, W, X, LANE) __asm__("sdot %0.4s, %1.16b, %2.4b[" #LANE "]" : "+w"(SUM) : "w"(W), "w"(X))
#define ND_SMMLA(SUM, X, W) __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(SUM) : "w"(X), "w"(W))

/* ---- FEAT_DotProd: eight places by eight channels; sixteen inputs of a place are read at once ---- */

ND_TARGET_DOT ND_INLINE void term_dotprod_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add) {
    const int8_t *weights = (const int8_t *)term->weights + 4 * first;
    int32x4_t total[ND_PIXELS][2];
#pragma GCC unroll 8
    for (int p = 0; p < ND_PIXELS; p++) total[p][0] = total[p][1] = vdupq_n_s32(0);
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < term->columns; column++) {
            const int8_t *tap = (const int8_t *)source + (int64_t)row * term->row_dilation * term->row_bytes
                                + (int64_t)column * term->column_dilation * term->place_bytes;
            for (int left = term->groups; left > 0; left -= 4, tap += 16) {
                int8x16_t x[ND_PIXELS];
#pragma GCC unroll 8
                for (int p = 0; p < ND_PIXELS; p++) x[p] = vld1q_s8(tap + p * term->next_place);
#define ND_GROUP(LANE)                                                                                                         \
    if (LANE < left) {                                                                                                         \
        const int8x16_t low = vld1q_s8(weights), high = vld1q_s8(weights + 16);                                                \
        _Pragma("GCC unroll 8") for (int p = 0; p < ND_PIXELS; p++) {                                                          \
            ND_SDOT(total[p][0], low, x[p], LANE);                                                                             \
            ND_SDOT(total[p][1], high, x[p], LANE);                                                                            \
        }                                                                                                                      \
        weights += 4 * layer->channels;                                                                                        \
    }
                ND_GROUP(0)
                ND_GROUP(1)
                ND_GROUP(2)
                ND_GROUP(3)
#undef ND_GROUP
            }
        }
    }
    const int32x4_t shift = vdupq_n_s32(term->shift);
#pragma GCC unroll 8
    for (int p = 0; p < ND_PIXELS; p++) {
        int32_t *at = sums + (int64_t)p * layer->channels + first;
        store_sums(vshlq_s32(total[p][0], shift), at, add);
        store_sums(vshlq_s32(total[p][1], shift), at + 4, add);
    }
}

ND_TARGET_DOT ND_INLINE void term_dotprod(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    if (term->graded) codes_neon(layer, term, source, sums, places, add);
    else for (int first = 0; first < layer->channels; first += 8) term_dotprod_block(layer, term, source, first, sums, add);
}

ND_DEFINE_ROW(
    row_dotprod, ND_TARGET_DOT, term_dotprod, add_steps, events_neon, count_neon, fire_neon, pack_neon, tally_plain, ND_PIXELS)

/* ---- FEAT_I8MM: two places by two channels by eight inputs an instruction, four pairs by four ---- */

/* Eight inputs of four pairs of places, and of eight channels. */
ND_TARGET_I8MM ND_INLINE void multiply_i8mm(int32x4_t (*total)[4], const int8x16_t *x, const int8_t *weights) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const int8x16_t w = vld1q_s8(weights + 16 * k);
#pragma GCC unroll 4
        for (int pair = 0; pair < 4; pair++) ND_SMMLA(total[pair][k], x[pair], w);
    }
}

ND_TARGET_I8MM ND_INLINE void term_i8mm_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *sums, int add) {
    const int8_t *weights = (const int8_t *)term->weights + 8 * first;
    const int64_t next = term->next_place;
    int32x4_t total[4][4]; /* of a pair of channels: two of the first place, two of the second */
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; pair++) total[pair][0] = total[pair][1] = total[pair][2] = total[pair][3] = vdupq_n_s32(0);
    for (int row = 0; row < term->rows; row++) {
        for (int column = 0; column < term->columns; column++) {
            const int8_t *tap = (const int8_t *)source + (int64_t)row * term->row_dilation * term->row_bytes
                                + (int64_t)column * term->column_dilation * term->place_bytes;
            for (int left = term->groups; left > 0; left -= 2, tap += 16) {
                int8x16_t low[4], high[4];
#pragma GCC unroll 4
                for (int pair = 0; pair < 4; pair++) {
                    const int64x2_t even = vreinterpretq_s64_s8(vld1q_s8(tap + 2 * pair * next));
                    const int64x2_t odd = vreinterpretq_s64_s8(vld1q_s8(tap + (2 * pair + 1) * next));
                    low[pair] = vreinterpretq_s8_s64(vtrn1q_s64(even, odd));
                    high[pair] = vreinterpretq_s8_s64(vtrn2q_s64(even, odd));
                }
                multiply_i8mm(total, low, weights);
                weights += 8 * layer->channels;
                if (left == 1) break;
                multiply_i8mm(total, high, weights);
                weights += 8 * layer->channels;
            }
        }
    }
    const int32x4_t shift = vdupq_n_s32(term->shift);
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; pair++) {
#pragma GCC unroll 2
        for (int k = 0; k < 4; k += 2) {
            const int64x2_t one = vreinterpretq_s64_s32(total[pair][k]), two = vreinterpretq_s64_s32(total[pair][k + 1]);
            int32_t *at = sums + (int64_t)2 * pair * layer->channels + first + 2 * k;
            store_sums(vshlq_s32(vreinterpretq_s32_s64(vtrn1q_s64(one, two)), shift), at, add);
            store_sums(vshlq_s32(vreinterpretq_s32_s64(vtrn2q_s64(one, two)), shift), at + layer->channels, add);
        }
    }
}

ND_TARGET_I8MM ND_INLINE void term_i8mm(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    if (term->graded) codes_neon(layer, term, source, sums, places, add);
    else for (int first = 0; first < layer->channels; first += 8) term_i8mm_block(layer, term, source, first, sums, add);
}

ND_DEFINE_ROW(row_i8mm, ND_TARGET_I8MM, term_i8mm, add_steps, events_neon, count_neon, fire_neon, pack_neon, tally_plain, ND_PIXELS)
