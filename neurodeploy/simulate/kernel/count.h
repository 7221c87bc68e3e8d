/* From counted spikes to synaptic operations, exactly: sums of integers over the taps that read a place. Part of
 * kernel.c, which includes it once for every vector width, with
 *
 *   ND_E(name)      the name of what belongs to this width
 *   ND_ATTRIBUTES   of its functions
 *
 * Nearly all columns of a convolution that keeps the resolution are read by all taps, so sums over whole rows are taken, and
 * what the few others lack is subtracted.
 */

/* sum of counts[c] * weights[c] */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(met)(const uint32_t *counts, const int32_t *weights, int channels) {
    int64_t total = 0;
    for (int channel = 0; channel < channels; channel++) total += (int64_t)counts[channel] * weights[channel];
    return total;
}

/* sum of counts[c] * (all[c] - some[c]) */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(missed)(const uint8_t *counts, const int32_t *all, const int32_t *some, int channels) {
    int64_t total = 0;
    for (int channel = 0; channel < channels; channel++) total += (int64_t)counts[channel] * (all[channel] - some[channel]);
    return total;
}

ND_ATTRIBUTES ND_INLINE const int32_t *ND_E(weights_of)(const nd_link *link, int column_class, int row, int channels) {
    return link->weights + ((int64_t)column_class * link->row_classes + link->row_class[row]) * channels;
}

/* Taps that the counts of a row arrive at, 'sum' of them in all. */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(arrived)(const nd_link *link, int row, const uint32_t *counts, uint64_t sum) {
    int64_t total = link->column_taps * (int64_t)sum;
    for (int edge = 0; edge < link->edge_count; edge++)
        total -= (int64_t)link->edge_missed[edge] * counts[link->edges[edge]];
    return total * link->row_taps[row];
}

ND_ATTRIBUTES ND_INLINE int64_t ND_E(bytes_sum)(const uint8_t *bytes, int count) {
    uint32_t total = 0;
    for (int i = 0; i < count; i++) total += bytes[i];
    return total;
}

ND_ATTRIBUTES ND_INLINE int64_t ND_E(bytes_some)(const uint8_t *bytes, int count) {
    uint32_t total = 0;
    for (int i = 0; i < count; i++) total += bytes[i] != 0;
    return total;
}

/* Takes away from the sums of a row what the column of an edge lacks. */
ND_ATTRIBUTES ND_INLINE void ND_E(edge)(
    const nd_counted *counted, const nd_link *link, int row, int edge, int64_t *found, uint8_t *restrict joined) {
    const int steps = counted->steps, channels = counted->channels;
    const int64_t factor = (int64_t)link->edge_missed[edge] * link->row_taps[row];
    const int32_t *all = ND_E(weights_of)(link, 0, row, channels);
    const int32_t *some = ND_E(weights_of)(link, link->edge_class[edge], row, channels);
    const uint8_t *first = counted->values + row * counted->value_row + link->edges[edge] * counted->value_place;
    for (int step = 0; step < steps; step++) {
        const uint8_t *at = first + step * counted->value_step;
        found[step] -= factor * ND_E(bytes_sum)(at, channels);
        found[steps + 1] -= ND_E(missed)(at, all, some, channels);
        for (int i = 0; steps > 1 && i < channels; i++) joined[i] = step ? joined[i] | at[i] : at[i];
    }
    found[steps] -= factor * ND_E(bytes_some)(steps > 1 ? joined : first, channels);
}

ND_ATTRIBUTES static void ND_E(add_up)(
    const nd_counted *counted, const nd_link *links, int link_count, int64_t *totals, int64_t *marked, int64_t *found,
    uint8_t *scratch) {
    const int steps = counted->steps, channels = counted->channels;
    memset(found, 0, sizeof *found * (size_t)(link_count * (steps + 2)));
    for (int step = 0; step <= steps; step++) {
        const uint64_t *sums = step == steps ? counted->ever : counted->by_row + step * counted->row_step;
        uint64_t total = 0;
        for (int row = 0; row < counted->rows; row++) total += sums[row];
        totals[step] = (int64_t)total;
        for (int k = 0; k < link_count; k++) {
            int64_t arriving = 0;
            for (int row = 0; row < counted->rows; row++) arriving += links[k].row_taps[row] * (int64_t)sums[row];
            found[(int64_t)k * (steps + 2) + step] = arriving * links[k].column_taps;
        }
        if (step == steps) break;
        marked[step] = 0;
        for (int row = 0; row < counted->rows; row++) {
            const uint8_t *bits = counted->marks + step * counted->mark_step + row * counted->mark_row;
            for (int i = 0; i < counted->mark_bytes; i++) marked[step] += __builtin_popcount(bits[i]);
        }
    }
    for (int k = 0; k < link_count; k++) {
        const nd_link *link = links + k;
        int64_t *sums = found + (int64_t)k * (steps + 2);
        for (int row = 0; row < counted->rows; row++) {
            const uint32_t *counts = counted->by_channel + (int64_t)row * channels;
            sums[steps + 1] += ND_E(met)(counts, ND_E(weights_of)(link, 0, row, channels), channels);
            for (int edge = 0; edge < link->edge_count; edge++) {
                const int64_t ahead = (row + 4) * counted->value_row + link->edges[edge] * counted->value_place;
                for (int step = 0; row + 4 < counted->rows && step < steps; step++)
                    __builtin_prefetch(counted->values + ahead + step * counted->value_step); /* too far apart to be guessed */
                ND_E(edge)(counted, link, row, edge, sums, scratch);
            }
        }
    }
}

ND_ATTRIBUTES static void ND_E(count_codes)(
    const int64_t *codes, int64_t frame_step, int64_t channel_step, int64_t row_step, int frames, int channels, int rows,
    int columns, const nd_link *links, int link_count, uint32_t *scratch, int64_t *found) {
    uint32_t *restrict ever = scratch, *sums = scratch + columns;
    memset(found, 0, sizeof *found * (size_t)(2 * link_count));
    for (int row = 0; row < rows; row++) {
        memset(ever, 0, sizeof *ever * (size_t)columns);
        for (int channel = 0; channel < channels; channel++) {
            const int64_t *line = codes + channel * channel_step + row * row_step;
            uint32_t total = 0;
            if (frames == 1) {
                for (int column = 0; column < columns; column++) {
                    const uint32_t here = line[column] != 0;
                    total += here;
                    ever[column] += here;
                }
            } else {
                for (int column = 0; column < columns; column++) {
                    uint32_t here = 0;
                    for (int frame = 0; frame < frames; frame++) here += line[frame * frame_step + column] != 0;
                    total += here;
                    ever[column] += here != 0;
                }
            }
            sums[channel] = total;
        }
        uint64_t places = 0;
        for (int column = 0; column < columns; column++) places += ever[column];
        for (int k = 0; k < link_count; k++) {
            const nd_link *link = links + k;
            const int32_t *all = ND_E(weights_of)(link, 0, row, channels);
            found[2 * k] += ND_E(arrived)(link, row, ever, places);
            found[2 * k + 1] += ND_E(met)(sums, all, channels);
            for (int edge = 0; edge < link->edge_count; edge++) {
                const int32_t *some = ND_E(weights_of)(link, link->edge_class[edge], row, channels);
                for (int channel = 0; channel < channels; channel++) {
                    const int64_t *at = codes + channel * channel_step + row * row_step + link->edges[edge];
                    for (int frame = 0; frame < frames; frame++)
                        if (at[frame * frame_step] != 0) found[2 * k + 1] -= all[channel] - some[channel];
                }
            }
        }
    }
}

/* Marks the outputs of a row that a convolution brings spikes to; 'joined' is room for a row of the source. */
ND_ATTRIBUTES ND_INLINE void ND_E(arriving)(const nd_arrival *at, int step, int row, int columns, uint8_t *restrict joined, uint8_t *restrict marks) {
    int some = 0;
    memset(joined, 0, (size_t)at->columns);
    for (int tap = 0; tap < at->kernel_rows; tap++) {
        const int read = row * at->row_stride - at->row_padding + tap * at->row_dilation;
        if (read < 0 || read >= at->rows) continue;
        const uint8_t *spiked = at->marks + ((int64_t)step * at->rows + read) * at->columns;
        for (int column = 0; column < at->columns; column++) joined[column] |= spiked[column];
        some = 1;
    }
    for (int tap = 0; some && tap < at->kernel_columns; tap++) {
        const int stride = at->column_stride, shift = tap * at->column_dilation - at->column_padding;
        const int first = shift < 0 ? (stride - 1 - shift) / stride : 0;
        const int reach = at->columns - 1 - shift; /* of the last output's place, from the first tap */
        const int end = reach < 0 ? 0 : reach / stride + 1 < columns ? reach / stride + 1 : columns;
        if (stride == 1) for (int column = first; column < end; column++) marks[column] |= joined[column + shift];
        else for (int column = first; column < end; column++) marks[column] |= joined[column * stride + shift];
    }
}

ND_ATTRIBUTES static void ND_E(receiving)(
    const nd_arrival *arrivals, int arrival_count, int steps, int rows, int columns, uint8_t *scratch, int64_t *found) {
    uint8_t *marks = scratch, *joined = scratch + columns;
    for (int step = 0; step < steps; step++) {
        found[step] = 0;
        for (int row = 0; row < rows; row++) {
            uint32_t total = 0;
            memset(marks, 0, (size_t)columns);
            for (int k = 0; k < arrival_count; k++) ND_E(arriving)(arrivals + k, step, row, columns, joined, marks);
            for (int column = 0; column < columns; column++) total += marks[column];
            found[step] += total;
        }
    }
}
