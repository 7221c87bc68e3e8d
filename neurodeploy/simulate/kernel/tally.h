/* Counting while it runs: sums of spike counts, taken from a block of outputs that still lies in the cache; part of
 * kernel.c.
 *
 * Bytes are added as bytes, over as many places of a row as cannot overflow them, and only then widened to doubles, which hold
 * every integer that occurs and which is what the caller computes with.
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

ND_INLINE void widen(double *sums, nd_bytes added) {
    for (int lane = 0; lane < ND_LANES; lane++) sums[lane] += added[lane];
}

/* 1 where a count is not 0. */
ND_INLINE nd_bytes some_of(nd_bytes counts) {
#ifdef ND_X86
    return (nd_bytes)_mm_min_epu8((__m128i)counts, _mm_set1_epi8(1));
#else
    return -(nd_bytes)(counts != 0);
#endif
}

ND_INLINE uint8_t any_of(nd_bytes counts) {
#ifdef ND_X86
    return _mm_movemask_epi8(_mm_cmpeq_epi8((__m128i)counts, _mm_setzero_si128())) != 0xffff;
#else
    uint64_t halves[2];
    memcpy(halves, &counts, sizeof halves);
    return (halves[0] | halves[1]) != 0;
#endif
}

/* The sums of a row so far, in bytes. */
typedef struct {
    uint8_t *sums; /* [steps][channels] */
    uint8_t *ever; /* [channels] */
    int most;      /* places whose counts fit a byte together */
    int left;      /* places that still fit 'sums' */
    int ever_left; /* places that still fit 'ever' */
} nd_tally;

ND_INLINE void flush_sums(const nd_layer *layer, nd_tally *tally, int row) {
    const int64_t channels = layer->channels;
    for (int step = 0; step < layer->steps; step++) {
        double *sums = layer->sums + ((int64_t)step * layer->rows + row) * channels;
        uint8_t *bytes = tally->sums + step * channels;
        for (int64_t first = 0; first < channels; first += ND_LANES) widen(sums + first, bytes_at(bytes + first));
        memset(bytes, 0, (size_t)channels);
    }
    tally->left = tally->most;
}

ND_INLINE void flush_ever(const nd_layer *layer, nd_tally *tally, int row) {
    double *ever = layer->ever + (int64_t)row * layer->channels;
    for (int first = 0; first < layer->channels; first += ND_LANES) widen(ever + first, bytes_at(tally->ever + first));
    memset(tally->ever, 0, (size_t)layer->channels);
    tally->ever_left = 255;
}

/* Before a row: nothing has been counted. */
ND_INLINE nd_tally tally_open(const nd_layer *layer, int row, uint8_t *sums, uint8_t *ever) {
    const size_t channels = (size_t)layer->channels;
    nd_tally tally = {.sums = sums, .ever = ever, .most = layer->levels ? 255 / layer->levels : 0, .ever_left = 255};
    tally.left = tally.most;
    for (int step = 0; layer->spikes && step < layer->steps; step++) layer->spikes[(int64_t)step * layer->rows + row] = 0;
    if (!layer->sums) return tally;
    for (int step = 0; step < layer->steps; step++)
        memset(layer->sums + ((int64_t)step * layer->rows + row) * layer->channels, 0, sizeof(double) * channels);
    memset(layer->ever + (int64_t)row * layer->channels, 0, sizeof(double) * channels);
    memset(sums, 0, channels * (size_t)layer->steps);
    memset(ever, 0, channels);
    return tally;
}

ND_INLINE void tally_close(const nd_layer *layer, nd_tally *tally, int row) {
    if (!layer->sums) return;
    flush_sums(layer, tally, row);
    flush_ever(layer, tally, row);
}

/* The loops over places below are written out where a block is whole. */
#define ND_PLACES _Pragma("GCC unroll 8") for (int place = start; place < end; place++)

ND_INLINE void add_sums(const uint8_t *out, int channels, const int start, const int end, uint8_t *sums) {
    for (int first = 0; first < channels; first += ND_LANES, out += ND_LANES) {
        nd_bytes added = bytes_at(sums + first);
        ND_PLACES added += bytes_at(out + (int64_t)place * channels);
        memcpy(sums + first, &added, sizeof added);
    }
}

/* Where some channel spikes. */
ND_INLINE void mark_places(const uint8_t *out, int channels, const int start, const int end, uint8_t *any) {
    ND_PLACES {
        nd_bytes joined = {0};
        for (int first = 0; first < channels; first += ND_LANES) joined |= bytes_at(out + (int64_t)place * channels + first);
        any[place] = any_of(joined);
    }
}

/* Places with a spike in some of the steps, which lie 'step_bytes' apart. */
ND_INLINE void add_ever(
    const uint8_t *out, int channels, int steps, int64_t step_bytes, int binary, const int start, const int end,
    uint8_t *ever) {
    for (int first = 0; first < channels; first += ND_LANES, out += ND_LANES) {
        nd_bytes active = bytes_at(ever + first);
        ND_PLACES {
            const uint8_t *counts = out + (int64_t)place * channels;
            nd_bytes joined = bytes_at(counts);
            for (int step = 1; step < steps; step++) joined |= bytes_at(counts + step * step_bytes);
            active += binary ? joined : some_of(joined);
        }
        memcpy(ever + first, &active, sizeof active);
    }
}

/* A block of outputs after a step; masks: its spikes as bits, if the layer has such. */
ND_INLINE void tally_block(
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
    if (!layer->sums || row < layer->first_row || row >= layer->end_row) return;
    const int start = layer->first_column > column ? layer->first_column - column : 0;
    const int end = layer->end_column - column < places ? layer->end_column - column : places;
    if (start >= end) return;
    const int whole = start == 0 && end == ND_PIXELS;
    uint8_t *sums = tally->sums + (int64_t)step * channels;
    if (tally->most < ND_PIXELS) {
        for (int place = start; place < end; place++)
            for (int first = 0; first < channels; first += ND_LANES)
                widen(layer->sums + line * channels + first, bytes_at(out + place * channels + first));
    } else {
        if (step == 0 && tally->left < ND_PIXELS) flush_sums(layer, tally, row);
        if (whole) add_sums(out, channels, 0, ND_PIXELS, sums);
        else add_sums(out, channels, start, end, sums);
    }
    if (layer->any) {
        uint8_t *any = layer->any + line * layer->columns + column;
        if (whole) mark_places(out, channels, 0, ND_PIXELS, any);
        else mark_places(out, channels, start, end, any);
    }
    if (step + 1 < layer->steps) return;
    tally->left -= end - start;
    if (tally->ever_left < ND_PIXELS) flush_ever(layer, tally, row);
    tally->ever_left -= end - start;
    const uint8_t *before = out - (int64_t)step * layer->out_step;
    const int binary = layer->levels == 1;
    if (!whole) add_ever(before, channels, layer->steps, layer->out_step, binary, start, end, tally->ever);
    else if (layer->steps == 1) add_ever(before, channels, 1, 0, binary, 0, ND_PIXELS, tally->ever);
    else add_ever(before, channels, layer->steps, layer->out_step, binary, 0, ND_PIXELS, tally->ever);
}

#undef ND_PLACES
