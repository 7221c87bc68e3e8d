/* Counting while it runs: sums of spike counts, taken from a block of outputs that still lies in the cache; part of
 * kernel.c, which includes it once for every vector width, with
 *
 *   ND_E(name)      the name of what belongs to this width
 *   ND_ATTRIBUTES   of its functions
 *   ND_WHOLE        counts whole blocks, where there is something quicker
 *   ND_WHOLE_EVER   the same for all steps together
 *
 * Over the places of a row, bytes are added as bytes for as long as they cannot overflow, and only then widened.
 */

ND_ATTRIBUTES ND_INLINE void ND_E(flush_sums)(const nd_layer *layer, nd_tally *tally, int row) {
    const int64_t channels = layer->channels;
    uint32_t *sums = layer->by_channel + row * channels;
    for (int64_t first = 0; first < channels; first += ND_LANES) widen(sums + first, bytes_at(tally->sums + first));
    memset(tally->sums, 0, (size_t)channels);
    tally->left = tally->most;
}

/* Before a row: nothing has been counted. */
ND_ATTRIBUTES ND_INLINE nd_tally ND_E(tally_open)(const nd_layer *layer, int row, uint8_t *sums) {
    const size_t channels = (size_t)layer->channels;
    nd_tally tally = {.sums = sums, .most = layer->levels ? 255 / layer->levels : 0};
    tally.left = tally.most;
    for (int step = 0; layer->spikes && step < layer->steps; step++) layer->spikes[(int64_t)step * layer->rows + row] = 0;
    if (!layer->by_channel) return tally;
    for (int step = 0; step < layer->steps; step++) layer->by_row[(int64_t)step * layer->rows + row] = 0;
    layer->ever[row] = 0;
    memset(layer->by_channel + (int64_t)row * layer->channels, 0, sizeof(uint32_t) * channels);
    memset(sums, 0, channels);
    return tally;
}

ND_ATTRIBUTES ND_INLINE void ND_E(tally_close)(const nd_layer *layer, nd_tally *tally, int row) {
    if (layer->by_channel) ND_E(flush_sums)(layer, tally, row);
}

/* The loops over places below are written out where a block is whole. */
#define ND_PLACES _Pragma("GCC unroll 8") for (int place = start; place < end; place++)

ND_ATTRIBUTES ND_INLINE void ND_E(add_sums)(const uint8_t *out, int channels, const int start, const int end, uint8_t *sums) {
    for (int first = 0; first < channels; first += ND_LANES, out += ND_LANES) {
        nd_bytes added = bytes_at(sums + first);
        ND_PLACES added += bytes_at(out + (int64_t)place * channels);
        memcpy(sums + first, &added, sizeof added);
    }
}

/* What a block adds: spikes, places and channels with one, and bits of the places with one. */
ND_ATTRIBUTES ND_INLINE nd_found ND_E(add_places)(const uint8_t *out, int channels, const int start, const int end) {
    nd_found found = {0, 0, 0};
    ND_PLACES {
        nd_total total = nothing(), some = nothing();
        for (int first = 0; first < channels; first += ND_LANES) {
            const nd_bytes counts = bytes_at(out + (int64_t)place * channels + first);
            total = added_to(total, counts);
            some = added_to(some, some_of(counts));
        }
        const uint32_t spikes = whole(total);
        found.spikes += spikes;
        found.some += whole(some);
        found.marks |= (unsigned)(spikes != 0) << place;
    }
    return found;
}

/* Places and channels with a spike in some of the steps. */
ND_ATTRIBUTES ND_INLINE uint64_t ND_E(add_ever)(const nd_layer *layer, const uint8_t *out, const int start, const int end) {
    const int channels = layer->channels;
    nd_total total = nothing();
    ND_PLACES {
        for (int first = 0; first < channels; first += ND_LANES) {
            const uint8_t *counts = out + (int64_t)place * channels + first;
            nd_bytes joined = bytes_at(counts);
            for (int step = 1; step < layer->steps; step++) joined |= bytes_at(counts + step * layer->out_step);
            total = added_to(total, some_of(joined));
        }
    }
    return whole(total);
}

#ifndef ND_WHOLE
#define ND_WHOLE(LAYER, OUT, SUMS) \
    (ND_E(add_sums)(OUT, (LAYER)->channels, 0, ND_PIXELS, SUMS), ND_E(add_places)(OUT, (LAYER)->channels, 0, ND_PIXELS))
#define ND_WHOLE_EVER(LAYER, OUT) ND_E(add_ever)(LAYER, OUT, 0, ND_PIXELS)
#endif

/* A block of outputs after a step; masks: its spikes as bits, if the layer has such. */
ND_ATTRIBUTES ND_INLINE void ND_E(tally_block)(
    const nd_layer *layer, nd_tally *tally, int row, int column, int step, int places, const uint8_t *out,
    const uint8_t *masks) {
    const int channels = layer->channels;
    const int64_t line = (int64_t)step * layer->rows + row;
    if (layer->spikes) {
        uint32_t total = 0;
        for (int i = 0; i < places * ND_MASK_BYTES(channels); i += 8)
            total += (uint32_t)__builtin_popcountll(mask_at(masks + i));
        layer->spikes[line] += total;
    }
    if (!layer->by_channel || row < layer->first_row || row >= layer->end_row) return;
    const int start = layer->first_column > column ? layer->first_column - column : 0;
    const int end = layer->end_column - column < places ? layer->end_column - column : places;
    if (start >= end) return;
    const int all = start == 0 && end == ND_PIXELS && tally->most >= ND_PIXELS;
    if (tally->most >= ND_PIXELS && tally->left < ND_PIXELS) ND_E(flush_sums)(layer, tally, row);
    tally->left -= end - start;
    nd_found found;
    if (all) {
        found = ND_WHOLE(layer, out, tally->sums);
    } else {
        found = ND_E(add_places)(out, channels, start, end);
        if (tally->most >= ND_PIXELS) ND_E(add_sums)(out, channels, start, end, tally->sums);
        else for (int place = start; place < end; place++)
            for (int first = 0; first < channels; first += ND_LANES)
                widen(layer->by_channel + (int64_t)row * channels + first, bytes_at(out + place * channels + first));
    }
    layer->by_row[line] += found.spikes;
    layer->marks[line * ((layer->columns + 7) / 8) + column / 8] = (uint8_t)found.marks;
    if (layer->steps == 1) {
        layer->ever[row] += found.some;
    } else if (step + 1 == layer->steps) {
        const uint8_t *before = out - (int64_t)step * layer->out_step;
        if (all) layer->ever[row] += ND_WHOLE_EVER(layer, before);
        else layer->ever[row] += ND_E(add_ever)(layer, before, start, end);
    }
}

#undef ND_PLACES
#undef ND_WHOLE
#undef ND_WHOLE_EVER
