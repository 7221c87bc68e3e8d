/* The event form of a convolution: rows of weights are added for the spikes that there are. Part of kernel.c, which
 * includes it once for every vector width, with
 *
 *   ND_E(name)      the name of what belongs to this width
 *   ND_ATTRIBUTES   of its functions
 *   ND_NARROW       lanes of int16 in a vector
 *   ND_WIDE         lanes of int32 in a vector
 *   ND_LIST         lists the spikes of one place, see list_plain()
 *
 * Of each column of the source that a block of outputs reads, the spikes of all kernel rows are listed once; the list
 * then serves every output place that the column reaches, up to three at a time, with their sums in registers.
 */

typedef int16_t ND_E(narrow) __attribute__((vector_size(2 * ND_NARROW)));
typedef int16_t ND_E(narrow_at) __attribute__((vector_size(2 * ND_NARROW), aligned(2), may_alias));
typedef int32_t ND_E(wide) __attribute__((vector_size(4 * ND_WIDE)));
typedef int32_t ND_E(wide_at) __attribute__((vector_size(4 * ND_WIDE), aligned(4), may_alias));
typedef int16_t ND_E(wide_row) __attribute__((vector_size(2 * ND_WIDE), aligned(2), may_alias));

/* A row of weights, and the sums of the place that a tap serves. */
#define ND_ROW(TYPE, TAP, ENTRY, FIRST) (*(const TYPE *)(const void *)(weights + (TAP) * column_bytes + (ENTRY) + 2 * (FIRST)))
#define ND_SUM(TYPE, TAP, FIRST) (*(TYPE *)(void *)(sums - (TAP) * stride + (FIRST)))

/* Adds a list of spikes to the sums of 'taps' places, 'stride' apart and backwards. */
ND_ATTRIBUTES ND_INLINE void ND_E(add_narrow)(
    const uint16_t *list, const uint16_t *end, const char *weights, int64_t column_bytes, int16_t *sums, int64_t stride,
    int first, const int taps, const int units) {
    ND_E(narrow) total[3][4];
#pragma GCC unroll 3
    for (int tap = 0; tap < taps; tap++) {
#pragma GCC unroll 4
        for (int unit = 0; unit < units; unit++)
            total[tap][unit] = ND_SUM(ND_E(narrow_at), tap, first + unit * ND_NARROW);
    }
    for (; list < end; list += 2) {
        const int64_t one = (int64_t)list[0] * ND_ENTRY, two = (int64_t)list[1] * ND_ENTRY;
#pragma GCC unroll 3
        for (int tap = 0; tap < taps; tap++) {
#pragma GCC unroll 4
            for (int unit = 0; unit < units; unit++)
                total[tap][unit] += ND_ROW(ND_E(narrow_at), tap, one, first + unit * ND_NARROW)
                                    + ND_ROW(ND_E(narrow_at), tap, two, first + unit * ND_NARROW);
        }
    }
#pragma GCC unroll 3
    for (int tap = 0; tap < taps; tap++) {
#pragma GCC unroll 4
        for (int unit = 0; unit < units; unit++)
            ND_SUM(ND_E(narrow_at), tap, first + unit * ND_NARROW) = total[tap][unit];
    }
}

ND_ATTRIBUTES ND_INLINE void ND_E(add_wide)(
    const uint16_t *list, const uint16_t *end, const char *weights, int64_t column_bytes, int32_t *sums, int64_t stride,
    int first, const int taps) {
    ND_E(wide) total[3];
#pragma GCC unroll 3
    for (int tap = 0; tap < taps; tap++) total[tap] = ND_SUM(ND_E(wide_at), tap, first);
    for (; list < end; list++) {
#pragma GCC unroll 3
        for (int tap = 0; tap < taps; tap++)
            total[tap] += __builtin_convertvector(
                ND_ROW(ND_E(wide_row), tap, (int64_t)*list * ND_ENTRY, first), ND_E(wide));
    }
#pragma GCC unroll 3
    for (int tap = 0; tap < taps; tap++) ND_SUM(ND_E(wide_at), tap, first) = total[tap];
}

#undef ND_ROW
#undef ND_SUM

/* The channels, as many vectors at a time as fit the registers. */
ND_ATTRIBUTES ND_INLINE void ND_E(add)(
    const uint16_t *list, const uint16_t *end, const char *weights, int64_t column_bytes, int16_t *narrow, int32_t *wide,
    int64_t stride, int channels, const int taps) {
    if (wide) {
        for (int first = 0; first < channels; first += ND_WIDE)
            ND_E(add_wide)(list, end, weights, column_bytes, wide, stride, first, taps);
        return;
    }
    for (int first = 0; first < channels; first += 4 * ND_NARROW) {
        const int units = (channels - first) / ND_NARROW;
        if (units == 1) ND_E(add_narrow)(list, end, weights, column_bytes, narrow, stride, first, taps, 1);
        else if (units == 2) ND_E(add_narrow)(list, end, weights, column_bytes, narrow, stride, first, taps, 2);
        else if (units == 3) ND_E(add_narrow)(list, end, weights, column_bytes, narrow, stride, first, taps, 3);
        else ND_E(add_narrow)(list, end, weights, column_bytes, narrow, stride, first, taps, 4);
    }
}

/* As the dense terms: sums of a block of places. masks: the source's spikes for the first tap of the block's first
 * place; narrow: int16 [ND_PIXELS][channels]; list: see nd_scratch(). */
ND_ATTRIBUTES static void ND_E(events)(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int places, int add, int few,
    int16_t *narrow, uint16_t *list) {
    (void)few;
    const int channels = layer->channels, inputs = term->inputs, rows = term->rows, columns = term->columns;
    const int step = term->column_dilation, reach = (columns - 1) * step;
    const int64_t place_bytes = term->mask_place, row_bytes = (int64_t)term->row_dilation * term->mask_row;
    const unsigned entries = 2 * (unsigned)channels / ND_ENTRY, zeros = (unsigned)(rows * inputs) * entries;
    const int64_t column_bytes = (int64_t)(rows * inputs + 1) * channels * 2, stride = (int64_t)step * channels;
    int32_t *wide = term->narrow ? 0 : sums;
    if (!wide) memset(narrow, 0, sizeof(int16_t) * (size_t)(places * channels));
    else if (!add) memset(sums, 0, sizeof(int32_t) * (size_t)(places * channels));
    int low = 0, high = 0; /* the taps through which some output place of the block reads a column */
    for (int column = 0; column < places + reach; column++, masks += place_bytes) {
        if (high < columns && column >= high * step) high++;
        if (column - low * step >= places) low++;
        if (low >= high) continue;
        uint16_t *end = list;
        for (int row = 0; row < rows; row++)
            end = ND_LIST(masks + row * row_bytes, inputs, (unsigned)(row * inputs) * entries, entries, end);
        if (end == list) continue;
        *end = (uint16_t)zeros; /* spikes are added in pairs */
        for (int tap = low; tap < high; tap += 3) {
            const char *weights = (const char *)term->events + tap * column_bytes;
            const int64_t place = (int64_t)(column - tap * step) * channels;
            int32_t *sum = wide ? wide + place : 0;
            if (high - tap == 1) ND_E(add)(list, end, weights, column_bytes, narrow + place, sum, stride, channels, 1);
            else if (high - tap == 2) ND_E(add)(list, end, weights, column_bytes, narrow + place, sum, stride, channels, 2);
            else ND_E(add)(list, end, weights, column_bytes, narrow + place, sum, stride, channels, 3);
        }
    }
    if (wide) return;
    const int size = places * channels, shift = term->event_shift;
    if (add) for (int i = 0; i < size; i++) sums[i] += narrow[i] * (1 << shift);
    else for (int i = 0; i < size; i++) sums[i] = narrow[i] * (1 << shift);
}

#ifdef ND_BLOCK
/* The commonest kernel, 3 columns without dilation, with the sums of all eight places in registers. */
ND_ATTRIBUTES ND_INLINE void ND_E(column)(
    ND_E(narrow) (*total)[3], const uint16_t *list, const uint16_t *end, const char *left, const char *middle,
    const char *right, const int column, const int units) {
    for (; list < end; list += 4) {
        const int64_t one = (int64_t)list[0] * ND_ENTRY, two = (int64_t)list[1] * ND_ENTRY;
        const int64_t three = (int64_t)list[2] * ND_ENTRY, four = (int64_t)list[3] * ND_ENTRY;
#pragma GCC unroll 3
        for (int tap = 0; tap < 3; tap++) {
            const int place = column - tap;
            const char *weights = tap == 0 ? left : tap == 1 ? middle : right;
            if (place < 0 || place >= ND_PIXELS) continue;
#pragma GCC unroll 3
            for (int unit = 0; unit < units; unit++) {
#define ND_ROW(ENTRY) (*(const ND_E(narrow_at) *)(const void *)(weights + (ENTRY) + 2 * unit * ND_NARROW))
                total[place][unit] += (ND_ROW(one) + ND_ROW(two)) + (ND_ROW(three) + ND_ROW(four));
#undef ND_ROW
            }
        }
    }
}

ND_ATTRIBUTES ND_INLINE void ND_E(block)(
    const nd_layer *layer, const nd_term *term, const uint16_t *lists, int64_t size, const uint16_t *const *ends,
    int32_t *sums, int add, int first, const int units) {
    const int64_t column_bytes = (int64_t)(term->rows * term->inputs + 1) * layer->channels * 2;
    const char *left = (const char *)term->events + 2 * first, *middle = left + column_bytes, *right = middle + column_bytes;
    ND_E(narrow) total[ND_PIXELS][3];
#pragma GCC unroll 8
    for (int place = 0; place < ND_PIXELS; place++) {
#pragma GCC unroll 3
        for (int unit = 0; unit < units; unit++) total[place][unit] = (ND_E(narrow)){0};
    }
#define ND_COLUMN(C) ND_E(column)(total, lists + (C) * size, ends[C], left, middle, right, C, units)
    ND_COLUMN(0);
    ND_COLUMN(1);
    ND_COLUMN(2);
    ND_COLUMN(3);
    ND_COLUMN(4);
    ND_COLUMN(5);
    ND_COLUMN(6);
    ND_COLUMN(7);
    ND_COLUMN(8);
    ND_COLUMN(9);
#undef ND_COLUMN
#pragma GCC unroll 8
    for (int place = 0; place < ND_PIXELS; place++) {
#pragma GCC unroll 3
        for (int unit = 0; unit < units; unit++)
            ND_WIDEN(total[place][unit], sums + place * layer->channels + first + unit * ND_NARROW, term->event_shift, add);
    }
}

ND_ATTRIBUTES static void ND_E(events_block)(
    const nd_layer *layer, const nd_term *term, const uint8_t *masks, int32_t *sums, int add, uint16_t *lists) {
    const int channels = layer->channels, inputs = term->inputs, rows = term->rows;
    const int64_t row_bytes = (int64_t)term->row_dilation * term->mask_row, size = nd_list_size(term);
    const unsigned entries = 2 * (unsigned)channels / ND_ENTRY, zeros = (unsigned)(rows * inputs) * entries;
    const uint16_t *ends[ND_PIXELS + 2];
    for (int column = 0; column < ND_PIXELS + 2; column++, masks += term->mask_place) {
        uint16_t *end = lists + column * size;
        for (int row = 0; row < rows; row++)
            end = ND_LIST(masks + row * row_bytes, inputs, (unsigned)(row * inputs) * entries, entries, end);
        end[0] = end[1] = end[2] = (uint16_t)zeros; /* spikes are added in fours */
        ends[column] = end;
    }
    for (int first = 0; first < channels;) {
        const int left = (channels - first) / ND_NARROW, units = left == 4 ? 2 : left < 3 ? left : 3;
        if (units == 1) ND_E(block)(layer, term, lists, size, ends, sums, add, first, 1);
        else if (units == 2) ND_E(block)(layer, term, lists, size, ends, sums, add, first, 2);
        else ND_E(block)(layer, term, lists, size, ends, sums, add, first, 3);
        first += units * ND_NARROW;
    }
}
#endif
