/* Counting while it runs: sums of spike counts, taken from a block of outputs that still lies in the cache; part of
 * kernel.c, which includes it once for every vector width, with
 *
 *   ND_E(name)      the name of what belongs to this width
 *   ND_ATTRIBUTES   of its functions
 *   ND_ADD_PLACES, ND_ADD_EVER   for whole blocks of counts, where there is something quicker
 *
 * The spikes of a place are counted in its bits, where the layer has such. Over the places of a row, bytes are added as bytes
 * for as long as they cannot overflow, and only then widened.
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
    if (!layer->by_place) return tally;
    memset(layer->by_channel + (int64_t)row * layer->channels, 0, sizeof(uint32_t) * channels);
    memset(sums, 0, channels);
    return tally;
}

ND_ATTRIBUTES ND_INLINE void ND_E(tally_close)(const nd_layer *layer, nd_tally *tally, int row) {
    if (layer->by_place) ND_E(flush_sums)(layer, tally, row);
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

/* Spikes of every place, of all channels. */
ND_ATTRIBUTES ND_INLINE void ND_E(add_places)(const uint8_t *out, int channels, const int start, const int end, uint32_t *by_place) {
    ND_PLACES {
        nd_total total = nothing();
        for (int first = 0; first < channels; first += ND_LANES)
            total = added_to(total, bytes_at(out + (int64_t)place * channels + first));
        by_place[place] = whole(total);
    }
}

/* Channels with a spike in some of the steps, of every place. */
ND_ATTRIBUTES ND_INLINE void ND_E(add_ever)(const nd_layer *layer, const uint8_t *out, const int start, const int end, uint32_t *ever) {
    const int channels = layer->channels;
    ND_PLACES {
        nd_total total = nothing();
        for (int first = 0; first < channels; first += ND_LANES) {
            const uint8_t *counts = out + (int64_t)place * channels + first;
            nd_bytes joined = bytes_at(counts);
            for (int step = 1; step < layer->steps; step++) joined |= bytes_at(counts + step * layer->out_step);
            total = added_to(total, some_of(joined));
        }
        ever[place] = whole(total);
    }
}

/* As add_ever, from the bits. */
ND_ATTRIBUTES ND_INLINE void ND_E(add_ever_bits)(const nd_layer *layer, const uint8_t *masks, const int start, const int end, uint32_t *ever) {
    const int size = ND_MASK_BYTES(layer->channels);
    ND_PLACES {
        uint32_t total = 0;
        for (int word = 0; word < size; word += 8) {
            const uint8_t *bits = masks + (int64_t)place * size + word;
            uint64_t joined = mask_at(bits);
            for (int step = 1; step < layer->steps; step++) joined |= mask_at(bits + step * layer->mask_step);
            total += (uint32_t)__builtin_popcountll(joined);
        }
        ever[place] = total;
    }
}

#ifdef ND_ADD_PLACES
#define ND_WHOLE_PLACES ND_ADD_PLACES(out, channels, by_place)
#define ND_WHOLE_EVER ND_ADD_EVER(layer, out - (int64_t)step * layer->out_step, ever)
#else
#define ND_WHOLE_PLACES ND_E(add_places)(out, channels, 0, ND_PIXELS, by_place)
#define ND_WHOLE_EVER ND_E(add_ever)(layer, out - (int64_t)step * layer->out_step, 0, ND_PIXELS, ever)
#endif

/* A block of outputs after a step; masks: its spikes as bits, if the layer has such. */
ND_ATTRIBUTES ND_INLINE void ND_E(tally_block)(
    const nd_layer *layer, nd_tally *tally, int row, int column, int step, int places, const uint8_t *out,
    const uint8_t *masks) {
    const int channels = layer->channels;
    const int64_t line = (int64_t)step * layer->rows + row;
    uint32_t bits[ND_PIXELS];
    if (layer->spikes) {
        uint32_t total = 0;
        for (int place = 0; place < places; place++) {
            bits[place] = 0;
            for (int word = 0; word < ND_MASK_BYTES(channels); word += 8, masks += 8)
                bits[place] += (uint32_t)__builtin_popcountll(mask_at(masks));
            total += bits[place];
        }
        masks -= places * ND_MASK_BYTES(channels);
        layer->spikes[line] += total;
    }
    if (!layer->by_place || row < layer->first_row || row >= layer->end_row) return;
    const int start = layer->first_column > column ? layer->first_column - column : 0;
    const int end = layer->end_column - column < places ? layer->end_column - column : places;
    if (start >= end) return;
    const int all = start == 0 && end == ND_PIXELS;
    if (tally->most < ND_PIXELS) {
        for (int place = start; place < end; place++)
            for (int first = 0; first < channels; first += ND_LANES)
                widen(layer->by_channel + (int64_t)row * channels + first, bytes_at(out + place * channels + first));
    } else {
        if (tally->left < ND_PIXELS) ND_E(flush_sums)(layer, tally, row);
        if (all) ND_E(add_sums)(out, channels, 0, ND_PIXELS, tally->sums);
        else ND_E(add_sums)(out, channels, start, end, tally->sums);
        tally->left -= end - start;
    }
    uint32_t *by_place = layer->by_place + line * layer->columns + column;
    if (layer->spikes) memcpy(by_place + start, bits + start, sizeof *bits * (size_t)(end - start));
    else if (all) ND_WHOLE_PLACES;
    else ND_E(add_places)(out, channels, start, end, by_place);
    if (step + 1 < layer->steps || layer->ever == layer->by_place) return;
    uint32_t *ever = layer->ever + (int64_t)row * layer->columns + column;
    if (layer->spikes) ND_E(add_ever_bits)(layer, masks - (int64_t)step * layer->mask_step, start, end, ever);
    else if (all) ND_WHOLE_EVER;
    else ND_E(add_ever)(layer, out - (int64_t)step * layer->out_step, start, end, ever);
}

#undef ND_PLACES
#undef ND_WHOLE_PLACES
#undef ND_WHOLE_EVER
