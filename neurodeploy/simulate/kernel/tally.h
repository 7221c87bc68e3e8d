/* Counting while it runs: sums of spike counts, taken from a block of outputs that still lies in the cache; part of
 * kernel.c.
 */

/* Sixteen counts at once; GCC and clang have such vectors on every machine. */
typedef uint8_t nd_bytes __attribute__((vector_size(ND_LANES)));

ND_INLINE uint64_t mask_at(const uint8_t *at) {
    uint64_t mask;
    memcpy(&mask, at, sizeof mask);
    return mask;
}

ND_INLINE nd_bytes bytes_at(const uint8_t *at) {
    nd_bytes value;
    memcpy(&value, at, sizeof value);
    return value;
}

ND_INLINE void widen(uint32_t *sums, nd_bytes added) {
    for (int lane = 0; lane < ND_LANES; lane++) sums[lane] += added[lane];
}

/* The sum of eight bytes. */
ND_INLINE uint32_t across(uint64_t bytes) {
    const uint64_t even = 0x00ff00ff00ff00ffu;
    const uint64_t pairs = (bytes & even) + ((bytes >> 8) & even);
    return (uint32_t)((pairs * 0x0001000100010001u) >> 48);
}

/* The sum of 'size' counts of at most 255 / most, a multiple of ND_LANES. */
ND_INLINE uint32_t sum_of(const uint8_t *counts, int size, int most) {
    uint32_t total = 0;
    for (int start = 0; start < size;) {
        nd_bytes added = {0};
        for (int left = most; left && start < size; left--, start += ND_LANES) added += bytes_at(counts + start);
        uint64_t halves[2];
        memcpy(halves, &added, sizeof halves);
        total += across(halves[0]) + across(halves[1]);
    }
    return total;
}

/* Before a row: nothing has been counted. */
ND_INLINE void tally_open(const nd_layer *layer, int row) {
    const int64_t channels = layer->channels;
    for (int step = 0; step < layer->steps; step++) {
        layer->spikes[(int64_t)step * layer->rows + row] = 0;
        if (layer->sums) memset(layer->sums + ((int64_t)step * layer->rows + row) * channels, 0, 4 * (size_t)channels);
    }
    if (layer->sums) memset(layer->ever + row * channels, 0, 4 * (size_t)channels);
}

ND_INLINE uint32_t bits_of(const uint8_t *masks, int size) {
    uint32_t total = 0;
    for (int i = 0; i < size; i += 8) total += (uint32_t)__builtin_popcountll(mask_at(masks + i));
    return total;
}

/* A block of outputs after a step. masks: its spikes as bits, if the layer has such; ever: uint8 [ND_PIXELS][channels], kept from step to step. */
ND_INLINE void tally_block(
    const nd_layer *layer, int row, int column, int step, int places, const uint8_t *out,
    const uint8_t *masks, uint8_t *ever) {
    const int channels = layer->channels, most = 255 / layer->levels;
    const int64_t line = (int64_t)step * layer->rows + row;
    if (layer->masks) layer->spikes[line] += bits_of(masks, places * ND_MASK_BYTES(channels));
    else layer->spikes[line] += sum_of(out, places * channels, most);
    if (!layer->sums || row < layer->first_row || row >= layer->end_row) return;
    const int start = layer->first_column > column ? layer->first_column - column : 0;
    const int end = layer->end_column - column < places ? layer->end_column - column : places;
    if (start >= end) return;
    uint32_t *sums = layer->sums + line * channels, *active_sums = layer->ever + (int64_t)row * channels;
    const int last = step + 1 == layer->steps;
    for (int first = 0; first < channels; first += ND_LANES) {
        nd_bytes added = {0}, active = {0};
        int left = most;
        for (int place = start; place < end; place++) {
            const nd_bytes here = bytes_at(out + place * channels + first);
            nd_bytes joined = here;
            if (step) joined |= bytes_at(ever + place * channels + first);
            if (!last) memcpy(ever + place * channels + first, &joined, sizeof joined);
            added += here;
            active -= (nd_bytes)(joined != 0);
            if (--left == 0) { /* more would not fit a byte */
                widen(sums + first, added);
                added = (nd_bytes){0};
                left = most;
            }
        }
        widen(sums + first, added);
        if (last) widen(active_sums + first, active);
    }
    uint8_t *any = layer->any + line * layer->columns + column;
    for (int place = start; place < end; place++) {
        if (layer->masks) {
            uint64_t joined = 0;
            for (int word = 0; word < ND_MASK_BYTES(channels); word += 8)
                joined |= mask_at(masks + place * ND_MASK_BYTES(channels) + word);
            any[place] = joined != 0;
            continue;
        }
        nd_bytes joined = {0};
        for (int first = 0; first < channels; first += ND_LANES) joined |= bytes_at(out + place * channels + first);
        uint64_t halves[2];
        memcpy(halves, &joined, sizeof halves);
        any[place] = (halves[0] | halves[1]) != 0;
    }
}
