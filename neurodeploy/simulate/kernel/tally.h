/* Counting while it runs: sums of spike counts, taken from a row of outputs that still lies in the cache, and what they
 * arrive at; part of kernel.c, which includes it once for every vector width, with
 *
 *   ND_E(name)      the name of what belongs to this width
 *   ND_ATTRIBUTES   of its functions
 *   ND_SUMS         adds up a row, where there is something quicker than row_sums()
 *   ND_MASK_SUMS    adds up a row of spikes that are kept as bits alone, where a path does so
 *
 * Over the places of a row, bytes are added as bytes for as long as they cannot overflow, and only then widened.
 */

/* Adds the counts of a step to those of every channel, and marks the places that spike; all spikes. */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(step_sums)(
    const uint8_t *out, int places, int channels, int levels, uint8_t *marks, uint32_t *by_channel) {
    const int most = 255 / levels;
    int64_t total = 0;
    for (int start = 0; start < places; start += most) {
        const int end = places - start < most ? places : start + most;
        for (int first = 0; first < channels; first += ND_LANES) {
            nd_bytes sum = {0};
            for (int place = start; place < end; place++) sum += bytes_at(out + (int64_t)place * channels + first);
            widen(by_channel + first, sum);
            total += whole(added_to(nothing(), sum));
        }
    }
    memset(marks, 0, (size_t)(places + 7) / 8);
    for (int place = 0; place < places; place++) {
        nd_bytes joined = {0};
        for (int first = 0; first < channels; first += ND_LANES) joined |= bytes_at(out + (int64_t)place * channels + first);
        const unsigned spikes = (mask_at((const uint8_t *)&joined) | mask_at((const uint8_t *)&joined + 8)) != 0;
        marks[place / 8] |= (uint8_t)(spikes << place % 8);
    }
    return total;
}

/* Places and channels, 'count' of them, that spike in some step. */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(ever_sums)(const uint8_t *out, int64_t count, int steps, int64_t step_bytes) {
    int64_t total = 0;
    for (int64_t start = 0; start < count; start += 255 * ND_LANES) {
        const int64_t end = count - start < 255 * ND_LANES ? count : start + 255 * ND_LANES;
        nd_bytes some = {0};
        for (int64_t at = start; at < end; at += ND_LANES) {
            nd_bytes joined = bytes_at(out + at);
            for (int step = 1; step < steps; step++) joined |= bytes_at(out + at + step * step_bytes);
            some += some_of(joined);
        }
        total += whole(added_to(nothing(), some));
    }
    return total;
}

/* Takes away from the sums of a row what the column of an edge lacks. Products of all steps fit 32 bits together. */
ND_ATTRIBUTES ND_INLINE void ND_E(edge)(
    const nd_layer *layer, const nd_link *link, const uint8_t *out, const uint8_t *masks, int row, int edge, int64_t *sums,
    uint8_t *restrict joined) {
    const int steps = layer->steps, channels = layer->channels;
    uint8_t *bytes = joined + channels;
    const int64_t factor = (int64_t)link->edge_missed[edge] * link->row_taps[row];
    const int32_t *missed = ND_E(weights_of)(link, link->edge_class[edge], row, channels);
    out += (int64_t)link->edges[edge] * channels;
    for (int step = 0; step < steps; step++) {
        const uint8_t *counts = out + step * layer->out_step;
        nd_total total = nothing();
        int32_t met = 0;
        if (layer->unread) {
            const uint8_t *bits = masks + step * layer->mask_step + (int64_t)link->edges[edge] * ND_MASK_BYTES(channels);
            for (int channel = 0; channel < channels; channel++) bytes[channel] = bits[channel / 8] >> channel % 8 & 1;
            counts = bytes;
        }
        for (int channel = 0; channel < channels; channel++) met += counts[channel] * missed[channel];
        for (int first = 0; first < channels; first += ND_LANES) {
            const nd_bytes here = bytes_at(counts + first);
            const nd_bytes ever = step ? bytes_at(joined + first) | here : here;
            total = added_to(total, here);
            memcpy(joined + first, &ever, sizeof ever);
        }
        sums[step] -= factor * whole(total);
        sums[steps + 1] -= met;
    }
    nd_total total = nothing();
    for (int first = 0; first < channels; first += ND_LANES) total = added_to(total, some_of(bytes_at(joined + first)));
    sums[steps] -= factor * whole(total);
}

/* Adds up 'places' of a row. marks: of step 0, 'mark_step' bytes before those of the next one; by_channel: [channels], the
 * counts of all steps are added; spikes: [steps], written; more: 64 bytes of room for each step. Places and channels that spike
 * in some step. */
ND_ATTRIBUTES ND_INLINE int64_t ND_E(row_sums)(
    const nd_layer *layer, const uint8_t *out, int places, uint8_t *marks, int64_t mark_step, uint32_t *by_channel, int64_t *spikes,
    uint8_t *more) {
    (void)more;
    for (int step = 0; step < layer->steps; step++)
        spikes[step] = ND_E(step_sums)(
            out + step * layer->out_step, places, layer->channels, layer->levels, marks + step * mark_step, by_channel);
    return ND_E(ever_sums)(out, (int64_t)places * layer->channels, layer->steps, layer->out_step);
}

#ifndef ND_SUMS
#define ND_SUMS ND_E(row_sums)
#endif

/* Counts a row of a layer. by_channel: nd_tally_size() words of room; found: see ND_FOUND */
ND_ATTRIBUTES static void ND_E(tally_row)(const nd_layer *layer, int row, uint32_t *by_channel, int64_t *found) {
    const int channels = layer->channels, steps = layer->steps;
    const int places = layer->end_column - layer->first_column, counted = row - layer->first_row;
    const int64_t bytes = (layer->columns + 7) / 8, mark_step = layer->rows * bytes;
    const uint8_t *out = (const uint8_t *)layer->out + row * layer->out_row + (int64_t)layer->first_column * channels;
    const uint8_t *masks = layer->unread ? layer->masks + row * layer->mask_row + layer->first_column * ND_MASK_BYTES(channels) : 0;
    uint8_t *marks = layer->marks + counted * bytes, *joined = (uint8_t *)(by_channel + channels);
    int64_t *spikes = (int64_t *)(void *)(by_channel + 2 * channels), *links = found + 2 * steps + 1;
    uint8_t *more = (uint8_t *)(spikes + steps);
    memset(by_channel, 0, sizeof *by_channel * (size_t)channels);
    int64_t ever;
#ifdef ND_MASK_SUMS
    if (layer->unread) ever = ND_MASK_SUMS(layer, masks, places, marks, mark_step, by_channel, spikes);
    else
#endif
    if (layer->levels > ND_STEP_LEVELS) ever = ND_E(row_sums)(layer, out, places, marks, mark_step, by_channel, spikes, more);
    else ever = ND_SUMS(layer, out, places, marks, mark_step, by_channel, spikes, more);
    for (int step = 0; step < steps; step++) {
        found[step] += spikes[step];
        for (int i = 0; i < (places + 7) / 8; i++) found[steps + 1 + step] += __builtin_popcount(marks[step * mark_step + i]);
    }
    found[steps] += ever;
    for (int k = 0; k < layer->link_count; k++, links += steps + 2) {
        const nd_link *link = layer->links + k;
        const int64_t taps = (int64_t)link->row_taps[counted] * link->column_taps;
        for (int step = 0; step < steps; step++) links[step] += taps * spikes[step];
        links[steps] += taps * ever;
        links[steps + 1] += ND_E(met)(by_channel, ND_E(weights_of)(link, 0, counted, channels), channels);
        for (int edge = 0; edge < link->edge_count; edge++) ND_E(edge)(layer, link, out, masks, counted, edge, links, joined);
    }
}

#undef ND_SUMS
#undef ND_MASK_SUMS
