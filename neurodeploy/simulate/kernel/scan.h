/* Spikes under kernels of three columns on the AVX2 path, without lists; part of x86.h.
 *
 * The columns of the source are walked once. Three sums in registers follow: of the output places that the column reaches by
 * its first, second and third tap. When the walk goes on, the third is complete.
 *
 * Few spikes are found in words of 64 bits, two at a time, and their rows of weights added. Many are taken five or six channels at a
 * time, by a table that has the sum of the rows of each set of these channels.
 */

/* Rows of the table of events of a word, and the row that is 0. */
#define ND_WORD_ROWS 65

/* Channels that a table of sets holds together, and what it takes for sixteen inputs: rows of all sets of six, five and five of
 * them, each with one of room behind them that spreads the rows of small sets over the cache. A row has the sums of three taps. */
#define ND_CHUNK 32
#define ND_SET_BYTES (3 * 2 * ND_CHUNK)
#define ND_SETS_BYTES ((65 + 33 + 33) * ND_SET_BYTES)

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

/* Adds a row of the table of sets to what a column reaches by its three taps. */
ND_TARGET_AVX2 ND_INLINE void add_set(nd_reached total, const char *row, const int column, const int units) {
#pragma GCC unroll 2
    for (int unit = 0; unit < units; unit++) {
        ND_ADD(total[column + 2][unit], row + 32 * unit);
        ND_ADD(total[column + 1][unit], row + 2 * ND_CHUNK + 32 * unit);
        ND_ADD(total[column][unit], row + 4 * ND_CHUNK + 32 * unit);
    }
}

/* The spikes of sixteen channels of one column. */
ND_TARGET_AVX2 ND_INLINE void add_sixteen(nd_reached total, uint32_t spikes, const char *table, const int column, const int units) {
    add_set(total, table + (size_t)(spikes & 63) * ND_SET_BYTES, column, units);
    add_set(total, table + 65 * ND_SET_BYTES + (size_t)(spikes >> 6 & 31) * ND_SET_BYTES, column, units);
    add_set(total, table + (65 + 33) * ND_SET_BYTES + (size_t)(spikes >> 11 & 31) * ND_SET_BYTES, column, units);
}

/* The spikes of some columns in some rows, of channels from 'first' to 'end': all columns by sixteen or 32 channels before the
 * next ones. */
ND_TARGET_AVX2 ND_INLINE void add_sets(
    nd_reached total, const nd_term *term, const uint8_t *masks, const char *table, int rows, unsigned first, unsigned end,
    const int columns, const int units) {
    const int64_t next = (int64_t)term->row_dilation * term->mask_row, place = term->mask_place;
    for (int row = 0; row < rows; row++, masks += next) {
        unsigned channel = first;
        for (; channel + 32 <= end; channel += 32, table += 2 * ND_SETS_BYTES) {
            const uint8_t *at = masks + channel / 8;
#pragma GCC unroll 4
            for (int column = 0; column < columns; column++) {
                const uint32_t spikes = (uint32_t)four_bytes(at + column * place);
                add_sixteen(total, spikes, table, column, units);
                add_sixteen(total, spikes >> 16, table + ND_SETS_BYTES, column, units);
            }
        }
        if (channel == end) continue;
#pragma GCC unroll 4
        for (int column = 0; column < columns; column++)
            add_sixteen(total, (uint32_t)four_bytes(masks + channel / 8 + column * place), table, column, units);
        table += ND_SETS_BYTES;
    }
}

/* What a part of the sets is about. */
typedef struct {
    const char *table;
    int rows, first, end; /* of the kernel; channels of the source */
    const int16_t *added; /* sums of the parts before, [places][channels]; 0 for none */
    int16_t *kept;        /* where its sums go, or 0 where they are complete */
} nd_part;

/* As follow(), by a part of the table of sets; computes whole fours of places. */
ND_TARGET_AVX2 ND_INLINE void follow_sets(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, nd_part part,
    const int units) {
    const unsigned first = (unsigned)part.first, end = (unsigned)part.end;
    const __m128i shift = _mm_cvtsi32_si128(term->event_shift);
    nd_reached total;
#pragma GCC unroll 6
    for (int place = 0; place < 6; place++) total[place][0] = total[place][1] = _mm256_setzero_si256();
    add_sets(total, term, masks, part.table, part.rows, first, end, 2, units);
    masks += 2 * term->mask_place;
    int64_t at = 0;
    for (int place = 0; place < places; place += 4, masks += 4 * term->mask_place) {
#pragma GCC unroll 2
        for (int unit = 0; unit < units; unit++) {
            const int from = place ? 4 : 2;
            total[0][unit] = from == 4 ? total[4][unit] : total[2][unit];
            total[1][unit] = from == 4 ? total[5][unit] : total[3][unit];
            total[2][unit] = total[3][unit] = total[4][unit] = total[5][unit] = _mm256_setzero_si256();
        }
        add_sets(total, term, masks, part.table, part.rows, first, end, 4, units);
#pragma GCC unroll 4
        for (int done = 0; done < 4; done++, at += layer->channels) {
#pragma GCC unroll 2
            for (int unit = 0; unit < units; unit++) {
                const int64_t here = at + ND_LANES * unit;
                __m256i sum = total[done][unit];
                if (part.added) sum = _mm256_add_epi16(sum, _mm256_loadu_si256((const __m256i *)(const void *)(part.added + here)));
                if (part.kept) _mm256_storeu_si256((__m256i *)(void *)(part.kept + here), sum);
                else widen_avx2(sum, sums + here, shift, add);
            }
        }
    }
}

/* Channels of the source of which the second cache holds the table, of one row of the kernel; of up to a third of them it holds
 * three rows. */
#define ND_PART 96

/* Sums of channels from 'chunk' on, in parts. */
ND_TARGET_AVX2 ND_INLINE void sets_avx2(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int16_t *narrow, int chunk,
    const int units) {
    const int rows = term->inputs > ND_PART / 3 ? 1 : 3, inputs = term->inputs > ND_PART ? ND_PART : term->inputs;
    nd_part part = {(const char *)term->sets, 0, 0, 0, 0, 0};
    part.table += (int64_t)chunk / ND_CHUNK * term->rows * (term->inputs / ND_LANES) * ND_SETS_BYTES;
    for (int row = 0; row < term->rows; row += rows) {
        part.rows = term->rows - row < rows ? term->rows - row : rows;
        for (part.first = 0; part.first < term->inputs; part.first = part.end) {
            part.end = term->inputs - part.first < inputs ? term->inputs : part.first + inputs;
            part.kept = row + rows >= term->rows && part.end == term->inputs ? 0 : narrow;
            follow_sets(layer, term, masks, sums + chunk, places, add, part, units);
            part.added = narrow;
            part.table += (int64_t)part.rows * ((part.end - part.first) / ND_LANES) * ND_SETS_BYTES;
        }
        masks += (int64_t)rows * term->row_dilation * term->mask_row;
    }
}

/* As the dense terms: sums of a block of places, of spikes under a kernel of three columns. few: there are few spikes. */
ND_TARGET_AVX2 static void spikes_under_three(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few, int16_t *narrow) {
    if (few || !term->sets) {
        if (term->joined == 4) scan_avx2(layer, term, masks, sums, places, add, 4);
        else if (term->joined == 2) scan_avx2(layer, term, masks, sums, places, add, 2);
        else scan_avx2(layer, term, masks, sums, places, add, 1);
        return;
    }
    for (int chunk = 0; chunk < layer->channels; chunk += ND_CHUNK) {
        if (layer->channels - chunk < ND_CHUNK) sets_avx2(layer, term, masks, sums, places, add, narrow, chunk, 1);
        else sets_avx2(layer, term, masks, sums, places, add, narrow, chunk, 2);
    }
}

#undef ND_ADD
