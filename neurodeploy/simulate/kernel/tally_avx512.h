/* The sums of a row of spike counts, see tally.h, in vectors of 64 bytes; part of kernel.c. */

/* The first bytes of a vector. */
ND_TARGET_AVX512 ND_INLINE __mmask64 first_bytes(int64_t count) {
    return count >= 64 ? ~(__mmask64)0 : count <= 0 ? 0 : ((__mmask64)1 << count) - 1;
}

/* Shifts a bit into 'silent': 1 where there is no bit in 'spiking'. Written out, because it takes compilers twice as much. */
#define ND_SILENT(SILENT, SPIKING) __asm__("cmpq $1, %1\n\tadcl %0, %0" : "+r"(SILENT) : "r"((uint64_t)(SPIKING)) : "cc")

/* Up to eight places: adds to 'sum', joins them with 'joined', or with 'single' counts those that spike; bits of the places without
 * a spike, the first place's lowest. A vector holds 64 of the channels, and maybe some of the next place, or all channels of 'per'
 * places. What reads the bytes is masked, not the load: vectors of 64 bytes have two units. */
ND_TARGET_AVX512 ND_INLINE unsigned eight_places(
    const uint8_t *out, int count, int channels, __mmask64 within, __m512i *sum, __m512i *joined, int64_t *ever, const int per,
    const int single, const int full) {
    unsigned silent = 0;
#pragma GCC unroll 8
    for (int vector = ND_PIXELS / per - 1; vector >= 0; vector--) {
        const uint8_t *at = out + (per == 1 ? (int64_t)vector * channels : 64 * vector);
        const __mmask64 here = full ? within : per > 1 ? first_bytes((int64_t)count * channels - 64 * vector) : vector < count ? within : 0;
        const __m512i counts = full ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(here, at);
        const uint64_t spiking = _mm512_mask_test_epi8_mask(here, counts, counts);
        *sum = _mm512_mask_add_epi8(*sum, here, *sum, counts);
        if (single) *ever += __builtin_popcountll(spiking);
        else joined[vector] = _mm512_or_si512(joined[vector], counts);
#pragma GCC unroll 4
        for (int place = per - 1; place >= 0; place--)
            ND_SILENT(silent, per == 1 ? spiking : per == 2 ? (uint32_t)(spiking >> 32 * place) : (uint16_t)(spiking >> 16 * place));
    }
    return silent;
}

/* A block of eight places, all steps, of which 'more' holds the sums; of a single step 'kept' does. The places and channels that
 * spike in some step. */
ND_TARGET_AVX512 ND_INLINE int64_t eight_sums(
    const nd_layer *layer, const uint8_t *at, int count, __mmask64 within, uint8_t *marks, int64_t mark_step, int first, uint8_t *more,
    __m512i *kept, const int per, const int single, const int full) {
    __m512i joined[ND_PIXELS];
    int64_t ever = 0;
#pragma GCC unroll 8
    for (int vector = 0; vector < ND_PIXELS / per; vector++) joined[vector] = _mm512_setzero_si512();
    for (int step = 0; step < (single ? 1 : layer->steps); step++, at += layer->out_step, marks += mark_step, more += 64) {
        __m512i sum = single ? *kept : _mm512_loadu_si512(more);
        const uint8_t mark = (uint8_t)~eight_places(at, count, layer->channels, within, &sum, joined, &ever, per, single, full);
        if (single) *kept = sum;
        else _mm512_storeu_si512(more, sum);
        *marks = first ? *marks | mark : mark;
    }
    if (single) return ever;
#pragma GCC unroll 8
    for (int vector = 0; vector < ND_PIXELS / per; vector++)
        ever += __builtin_popcountll(_mm512_mask_test_epi8_mask(within, joined[vector], joined[vector]));
    return ever;
}

/* Adds bytes of 'per' places to the sums of channels, and clears them; all that they add up to. */
ND_TARGET_AVX512 ND_INLINE int64_t widen_sums(uint8_t *bytes, uint32_t *by_channel, int channels, const int per) {
    const __m512i zero = _mm512_setzero_si512(), sum = _mm512_loadu_si512(bytes);
    for (int at = 0; at < (per > 1 ? 64 : channels); at += ND_LANES) {
        uint32_t *sums = by_channel + at % channels;
        const __m512i more = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(bytes + at)));
        _mm512_storeu_si512(sums, _mm512_add_epi32(_mm512_loadu_si512(sums), more));
    }
    _mm512_storeu_si512(bytes, zero);
    return (int64_t)_mm512_reduce_add_epi64(_mm512_sad_epu8(sum, zero));
}

ND_TARGET_AVX512 ND_INLINE int64_t sums_of_avx512(
    const nd_layer *layer, const uint8_t *out, int places, uint8_t *marks, int64_t mark_step, uint32_t *by_channel, int64_t *spikes,
    uint8_t *more, const int per, const int single) {
    const int channels = layer->channels, steps = layer->steps;
    const int most = 255 / layer->levels / (ND_PIXELS / per); /* blocks whose counts fit a byte */
    int64_t ever = 0;
    memset(spikes, 0, sizeof *spikes * (size_t)steps);
    memset(more, 0, 64 * (size_t)steps);
    for (int first = 0; first < channels; first += 64) {
        const int held = channels - first < 64 ? channels - first : 64;
        const __mmask64 within = per > 1 ? ~(__mmask64)0 : first_bytes(held);
        __m512i kept = _mm512_setzero_si512();
        for (int start = 0, left = most; start < places; start += ND_PIXELS) {
            const uint8_t *at = out + (int64_t)start * channels + first;
            const int count = places - start;
            if (count >= ND_PIXELS) ever += eight_sums(layer, at, count, within, marks + start / 8, mark_step, first, more, &kept, per, single, 1);
            else ever += eight_sums(layer, at, count, within, marks + start / 8, mark_step, first, more, &kept, per, single, 0);
            if (--left && count > ND_PIXELS) continue;
            left = most;
            if (single) _mm512_storeu_si512(more, kept);
            kept = _mm512_setzero_si512();
            for (int step = 0; step < steps; step++) spikes[step] += widen_sums(more + 64 * step, by_channel + first, held, per);
        }
    }
    return ever;
}

/* As row_sums(). */
ND_TARGET_AVX512 ND_INLINE int64_t sums_avx512(
    const nd_layer *layer, const uint8_t *out, int places, uint8_t *marks, int64_t mark_step, uint32_t *by_channel, int64_t *spikes,
    uint8_t *more) {
#define ND_SUMS_OF(PER, SINGLE) sums_of_avx512(layer, out, places, marks, mark_step, by_channel, spikes, more, PER, SINGLE)
    if (layer->channels == 16) return layer->steps == 1 ? ND_SUMS_OF(4, 1) : ND_SUMS_OF(4, 0);
    if (layer->channels == 32) return layer->steps == 1 ? ND_SUMS_OF(2, 1) : ND_SUMS_OF(2, 0);
    return layer->steps == 1 ? ND_SUMS_OF(1, 1) : ND_SUMS_OF(1, 0);
#undef ND_SUMS_OF
}
