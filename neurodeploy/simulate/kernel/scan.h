/* Spikes under kernels of three columns on the AVX2 path, without lists; part of x86.h.
 *
 * The columns of the source are walked once. Three sums in registers follow: of the output places that the column reaches by
 * its first, second and third tap. When the walk goes on, the third is complete.
 *
 * Few spikes are found in words of 64 bits, two at a time, and their rows of weights added. Many are taken four channels at a time, by
 * a table that has the sum of the rows of each of the sixteen sets of four channels.
 */

/* Rows of the table of events of a word, and the row that is 0. */
#define ND_WORD_ROWS 65

/* Channels that a table of sets holds together, and what it takes for four inputs: sixteen rows, and room that spreads the rows
 * of small sets over the cache. */
#define ND_CHUNK 32
#define ND_SETS_BYTES ((16 + 1) * 2 * ND_CHUNK)

/* Adds sixteen numbers in memory. Written out, because compilers add them up in another order first, which takes more loads and
 * more registers for addresses. */
typedef __m256i nd_sixteen __attribute__((aligned(2), may_alias));
#define ND_ADD(SUM, ADDRESS) __asm__("vpaddw %1, %0, %0" : "+x"(SUM) : "m"(*(const nd_sixteen *)(const void *)(ADDRESS)))

/* Sums of sixteen channels, shifted, of 32 bits. */
ND_TARGET_AVX2 ND_INLINE void widen_avx2(__m256i narrow, int32_t *sums, __m128i shift, int add) {
    __m256i *at = (__m256i *)(void *)sums;
    __m256i low = _mm256_sll_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(narrow)), shift);
    __m256i high = _mm256_sll_epi32(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(narrow, 1)), shift);
    if (add) {
        low = _mm256_add_epi32(low, _mm256_loadu_si256(at));
        high = _mm256_add_epi32(high, _mm256_loadu_si256(at + 1));
    }
    _mm256_storeu_si256(at, low);
    _mm256_storeu_si256(at + 1, high);
}

/* The sums of three places: that of a tap belongs to the place that the column reaches by it. */
typedef __m256i nd_follow[3][4];

/* The spikes of a word. rows: of the word's first channel, for the first tap; 'tap' bytes further for each of the others. */
ND_TARGET_AVX2 ND_INLINE void scan_word(
    nd_follow total, uint64_t spikes, const char *rows, int64_t tap, int row_bytes, const int units) {
    const char *middle = rows + tap, *last = middle + tap;
    while (spikes) {
        const int64_t one = (int64_t)_tzcnt_u64(spikes) * row_bytes;
        spikes &= spikes - 1;
        const int64_t two = (int64_t)_tzcnt_u64(spikes) * row_bytes; /* of none: 64, the row that is 0 */
        spikes &= spikes - 1;
#pragma GCC unroll 4
        for (int unit = 0; unit < units; unit++) {
            ND_ADD(total[0][unit], rows + one + 32 * unit);
            ND_ADD(total[1][unit], middle + one + 32 * unit);
            ND_ADD(total[2][unit], last + one + 32 * unit);
            ND_ADD(total[0][unit], rows + two + 32 * unit);
            ND_ADD(total[1][unit], middle + two + 32 * unit);
            ND_ADD(total[2][unit], last + two + 32 * unit);
        }
    }
}

/* The spikes of one column; 'joined' rows of the source share a word. */
ND_TARGET_AVX2 ND_INLINE void scan_column(
    nd_follow total, const nd_term *term, const uint8_t *masks, const char *table, int64_t tap, int row_bytes,
    const int joined, const int units) {
    const int64_t next = (int64_t)term->row_dilation * term->mask_row;
    for (int row = 0; row < term->rows; row += joined, masks += joined * next) {
        for (int first = 0; first < term->inputs; first += 64, table += (int64_t)ND_WORD_ROWS * row_bytes) {
            uint64_t spikes = mask_at(masks + first / 8);
#pragma GCC unroll 3
            for (int more = 1; more < joined; more++)
                if (row + more < term->rows) spikes |= mask_at(masks + more * next) << (64 / joined * more);
            scan_word(total, spikes, table, tap, row_bytes, units);
        }
    }
}

/* A block of places, channels from 'first' on: 16 times 'units'. */
ND_TARGET_AVX2 ND_INLINE void follow(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int first,
    const int joined, const int units) {
    const int channels = layer->channels, row_bytes = 2 * channels;
    const int64_t words = (int64_t)(joined > 1 ? (term->rows + joined - 1) / joined : term->rows * ((term->inputs + 63) / 64));
    const int64_t tap = words * ND_WORD_ROWS * row_bytes;
    const char *table = (const char *)term->events + 2 * first;
    const __m128i shift = _mm_cvtsi32_si128(term->event_shift);
    nd_follow total;
#pragma GCC unroll 4
    for (int unit = 0; unit < units; unit++) total[0][unit] = total[1][unit] = total[2][unit] = _mm256_setzero_si256();
    sums += first - 2 * channels;
    for (int column = 0; column < places + 2; column++, masks += term->mask_place, sums += channels) {
        scan_column(total, term, masks, table, tap, row_bytes, joined, units);
#pragma GCC unroll 4
        for (int unit = 0; unit < units; unit++) {
            if (column >= 2) widen_avx2(total[2][unit], sums + ND_LANES * unit, shift, add);
            total[2][unit] = total[1][unit];
            total[1][unit] = total[0][unit];
            total[0][unit] = _mm256_setzero_si256();
        }
    }
}

ND_TARGET_AVX2 ND_INLINE void scan_avx2(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, const int joined) {
    for (int first = 0; first < layer->channels;) {
        const int left = (layer->channels - first) / ND_LANES, units = left < 4 ? left : 4;
        if (units == 1) follow(layer, term, masks, sums, places, add, first, joined, 1);
        else if (units == 2) follow(layer, term, masks, sums, places, add, first, joined, 2);
        else if (units == 3) follow(layer, term, masks, sums, places, add, first, joined, 3);
        else follow(layer, term, masks, sums, places, add, first, joined, 4);
        first += units * ND_LANES;
    }
}

/* The sums of the places that four columns reach, the first of which is complete when they are through. */
typedef __m256i nd_reached[4 + 2][2];

/* The spikes of some columns, four channels at a time: all columns by one part of the table before the next part. */
ND_TARGET_AVX2 ND_INLINE void add_sets(
    nd_reached total, const nd_term *term, const uint8_t *masks, const char *table, int64_t tap, const int columns, const int units) {
    const int64_t next = (int64_t)term->row_dilation * term->mask_row;
    const char *middle = table + tap, *last = middle + tap;
    for (int row = 0; row < term->rows; row++, masks += next) {
        for (int first = 0; first < term->inputs; first += ND_LANES) {
#pragma GCC unroll 4
            for (int column = 0; column < columns; column++) {
                uint16_t spikes;
                memcpy(&spikes, masks + column * term->mask_place + first / 8, sizeof spikes);
#pragma GCC unroll 4
                for (int four = 0; four < 4; four++) {
                    /* sixteen rows of 64 bytes */
                    const int64_t set = (four < 2 ? (unsigned)spikes << (6 - 4 * four) : (unsigned)spikes >> (4 * four - 6)) & 0x3C0;
#pragma GCC unroll 2
                    for (int unit = 0; unit < units; unit++) {
                        ND_ADD(total[column + 2][unit], table + set + ND_SETS_BYTES * four + 32 * unit);
                        ND_ADD(total[column + 1][unit], middle + set + ND_SETS_BYTES * four + 32 * unit);
                        ND_ADD(total[column][unit], last + set + ND_SETS_BYTES * four + 32 * unit);
                    }
                }
            }
            table += 4 * ND_SETS_BYTES;
            middle += 4 * ND_SETS_BYTES;
            last += 4 * ND_SETS_BYTES;
        }
    }
}

/* As follow(), by the table of sets; computes whole fours of places. */
ND_TARGET_AVX2 ND_INLINE void follow_sets(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int first, const int units) {
    const int64_t tap = (int64_t)term->rows * term->inputs / 4 * ND_SETS_BYTES;
    const char *table = (const char *)term->sets + first / ND_CHUNK * 3 * tap;
    const __m128i shift = _mm_cvtsi32_si128(term->event_shift);
    nd_reached total;
#pragma GCC unroll 6
    for (int place = 0; place < 6; place++) total[place][0] = total[place][1] = _mm256_setzero_si256();
    add_sets(total, term, masks, table, tap, 2, units);
    masks += 2 * term->mask_place;
    for (int place = 0; place < places; place += 4, masks += 4 * term->mask_place) {
#pragma GCC unroll 2
        for (int unit = 0; unit < units; unit++) {
            const int from = place ? 4 : 2;
            total[0][unit] = from == 4 ? total[4][unit] : total[2][unit];
            total[1][unit] = from == 4 ? total[5][unit] : total[3][unit];
            total[2][unit] = total[3][unit] = total[4][unit] = total[5][unit] = _mm256_setzero_si256();
        }
        add_sets(total, term, masks, table, tap, 4, units);
#pragma GCC unroll 4
        for (int done = 0; done < 4; done++) {
#pragma GCC unroll 2
            for (int unit = 0; unit < units; unit++)
                widen_avx2(total[done][unit], sums + (int64_t)(place + done) * layer->channels + first + ND_LANES * unit, shift, add);
        }
    }
}

/* As the dense terms: sums of a block of places, of spikes under a kernel of three columns. few: there are few spikes. */
ND_TARGET_AVX2 static void spikes_under_three(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few) {
    if (few || !term->sets) {
        if (term->joined == 4) scan_avx2(layer, term, masks, sums, places, add, 4);
        else if (term->joined == 2) scan_avx2(layer, term, masks, sums, places, add, 2);
        else scan_avx2(layer, term, masks, sums, places, add, 1);
        return;
    }
    for (int first = 0; first < layer->channels; first += ND_CHUNK) {
        if (layer->channels - first < ND_CHUNK) follow_sets(layer, term, masks, sums, places, add, first, 1);
        else follow_sets(layer, term, masks, sums, places, add, first, 2);
    }
}

#undef ND_ADD
