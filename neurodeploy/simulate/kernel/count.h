/* From counted spikes to synaptic operations, exactly: sums of integers over the taps that read a place; and what a run
 * begins and ends with. Part of kernel.c, which includes it once for every vector width, with
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
    for (int channel = 0; channel < channels; channel++) total += (int64_t)(int32_t)counts[channel] * weights[channel];
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
                const int32_t *missed = ND_E(weights_of)(link, link->edge_class[edge], row, channels);
                for (int channel = 0; channel < channels; channel++) {
                    const int64_t *at = codes + channel * channel_step + row * row_step + link->edges[edge];
                    for (int frame = 0; frame < frames; frame++)
                        if (at[frame * frame_step] != 0) found[2 * k + 1] -= missed[channel];
                }
            }
        }
    }
}

/* Marks the outputs of a row that a convolution brings something to, in words of bits; room: a row of the source and two words. */
ND_ATTRIBUTES ND_INLINE void ND_E(arriving)(
    const nd_arrival *at, int step, int row, int columns, uint64_t *restrict room, uint64_t *restrict marks) {
    const int words = (at->columns + 63) / 64, outputs = (columns + 63) / 64;
    int some = 0;
    memset(room, 0, sizeof *room * (size_t)(words + 2));
    for (int tap = 0; tap < at->kernel_rows; tap++) {
        const int read = row * at->row_stride - at->row_padding + tap * at->row_dilation;
        if (read < 0 || read >= at->rows) continue;
        some = 1;
        if (!at->marks) continue;
        const uint8_t *spiked = at->marks + step * at->mark_step + read * at->mark_row;
        for (int i = 0; i < words; i++) {
            const int left = (at->columns + 7) / 8 - 8 * i;
            uint64_t word = 0;
            memcpy(&word, spiked + 8 * i, (size_t)(left < 8 ? left : 8));
            room[i + 1] |= in_order(word);
        }
    }
    if (!some) return;
    for (int i = 0; !at->marks && i < words; i++)
        room[i + 1] = at->columns - 64 * i < 64 ? (UINT64_C(1) << (at->columns - 64 * i)) - 1 : ~UINT64_C(0);
    for (int tap = 0; tap < at->kernel_columns; tap++) {
        const int stride = at->column_stride, shift = tap * at->column_dilation - at->column_padding;
        if (stride == 1) { /* output c reads place c + shift */
            const int whole = shift >> 6, part = shift & 63;
            for (int i = 0; i < outputs; i++) {
                const int low = i + whole + 1, high = low + 1;
                const uint64_t one = low >= 0 && low < words + 2 ? room[low] : 0, two = high >= 0 && high < words + 2 ? room[high] : 0;
                marks[i] |= part ? one >> part | two << (64 - part) : one;
            }
            continue;
        }
        for (int column = 0; column < columns; column++) {
            const int64_t read = (int64_t)column * stride + shift;
            if (read >= 0 && read < at->columns) marks[column / 64] |= (room[read / 64 + 1] >> read % 64 & 1) << column % 64;
        }
    }
}

ND_ATTRIBUTES static void ND_E(receiving)(
    const nd_arrival *arrivals, int arrival_count, int steps, int rows, int columns, uint64_t *scratch, int64_t *found) {
    const int words = (columns + 63) / 64;
    uint64_t *marks = scratch, *room = scratch + words;
    for (int step = 0; step < steps; step++) {
        found[step] = 0;
        for (int row = 0; row < rows; row++) {
            memset(marks, 0, sizeof *marks * (size_t)words);
            for (int k = 0; k < arrival_count; k++) ND_E(arriving)(arrivals + k, step, row, columns, room, marks);
            if (columns % 64) marks[words - 1] &= (UINT64_C(1) << columns % 64) - 1;
            for (int i = 0; i < words; i++) found[step] += __builtin_popcountll(marks[i]);
        }
    }
}

/* Puts a row of the codes where layers read it; their largest magnitude. What does not fit is seen there and runs no further. */
ND_ATTRIBUTES static void ND_E(hold_row)(const nd_network *network, int row, int64_t *largest) {
    int64_t least = 0, most = 0;
    for (int frame = 0; frame < network->frames; frame++) {
        for (int channel = 0; channel < network->channels; channel++) {
            int64_t low = 0, high = 0;
            const int64_t *codes = network->codes + frame * network->frame_step + channel * network->channel_step
                                   + row * network->row_step;
            int16_t *held = network->held + frame * network->held_frame + row * network->held_row + channel;
            for (int column = 0; column < network->columns; column++) {
                low = codes[column] < low ? codes[column] : low;
                high = codes[column] > high ? codes[column] : high;
            }
            for (int column = 0; column < network->columns; column++) held[column * network->held_place] = (int16_t)codes[column];
            /* threads have rows, not frames */
            if (low || high) __atomic_store_n(network->shown + frame * network->channels + channel, 1, __ATOMIC_RELAXED);
            least = low < least ? low : least;
            most = high > most ? high : most;
        }
    }
    const int64_t below = least == INT64_MIN ? INT64_MAX : -least;
    *largest = most > below ? most : below;
}

/* A row of the output. */
ND_ATTRIBUTES static void ND_E(total_row)(const nd_network *network, int row) {
    const nd_layer *readout = network->layers + network->layer_count - 1;
    const int32_t *sums = (const int32_t *)(const void *)((const uint8_t *)readout->out + row * readout->out_row);
    for (int channel = 0; channel < network->outputs; channel++) {
        int64_t *total = network->total + ((int64_t)channel * readout->rows + row) * readout->columns;
        const int64_t offset = network->offset[channel];
        for (int column = 0; column < readout->columns; column++) total[column] = sums[(int64_t)column * readout->channels + channel] + offset;
    }
}
