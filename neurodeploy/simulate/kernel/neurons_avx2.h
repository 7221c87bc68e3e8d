/* The neurons of the AVX2 path, with spikes as bytes and as bits; part of avx2.h. */

/* 32 bits of -1 where a neuron fired, of eight channels in each of the vectors, as bytes of 1, where 'out' is not 0, and as bits. */
ND_TARGET_AVX2 ND_INLINE uint32_t spikes_avx2(const __m256i *fired, uint8_t *out, const int vectors) {
    if (vectors == 4) {
        const __m256i parts = _mm256_packs_epi16(_mm256_packs_epi32(fired[0], fired[1]), _mm256_packs_epi32(fired[2], fired[3]));
        const __m256i bytes = _mm256_permutevar8x32_epi32(parts, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        if (out) _mm256_storeu_si256((__m256i *)(void *)out, _mm256_abs_epi8(bytes));
        return (uint32_t)_mm256_movemask_epi8(bytes);
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(fired[0], fired[1]), 0xD8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    if (out) _mm_storeu_si128((__m128i *)(void *)out, _mm_abs_epi8(bytes));
    return (uint32_t)_mm_movemask_epi8(bytes);
}

/* As decayed(), for |x| < 2^24: both factors of each product fit 16 bits. */
ND_TARGET_AVX2 ND_INLINE __m256i decayed_membrane_avx2(__m256i x, __m256i keep) {
    const __m256i magnitude = _mm256_abs_epi32(x);
    const __m256i low = _mm256_and_si256(magnitude, _mm256_set1_epi32(4095));
    const __m256i kept = _mm256_add_epi32(
        _mm256_madd_epi16(_mm256_srli_epi32(magnitude, 12), keep), _mm256_srli_epi32(_mm256_madd_epi16(low, keep), 12));
    return _mm256_sign_epi32(kept, x);
}

/* x divided by 2 'count' times, truncated toward zero; 'others' is 32 - count. */
ND_TARGET_AVX2 ND_INLINE __m256i halved_avx2(__m256i x, __m128i count, __m128i others) {
    const __m256i less = _mm256_srl_epi32(_mm256_srai_epi32(x, 31), others);
    return _mm256_sra_epi32(_mm256_add_epi32(x, less), count);
}

/* x / 2, truncated toward zero. */
ND_TARGET_AVX2 ND_INLINE __m256i half_avx2(__m256i x) {
    return _mm256_srai_epi32(_mm256_add_epi32(x, _mm256_srli_epi32(x, 31)), 1);
}

/* As wrapped(). */
ND_TARGET_AVX2 ND_INLINE __m256i wrapped_avx2(__m256i x, int32_t limit) {
    const __m256i unit = _mm256_set1_epi32(limit), twice = _mm256_set1_epi32(2 * limit);
    const __m256i over = _mm256_cmpgt_epi32(x, unit), within = _mm256_cmpgt_epi32(x, _mm256_set1_epi32(-limit));
    return _mm256_add_epi32(_mm256_sub_epi32(x, _mm256_and_si256(over, twice)), _mm256_andnot_si256(within, twice));
}

/* As keep_bits(), of 'vectors' times eight channels. */
ND_INLINE void keep_spikes(uint8_t *bits, int first, uint32_t spikes, const int vectors) {
    const uint64_t word = spikes;
    if (first % 64 == 0) memcpy(bits + first / 8, &word, sizeof word);
    else memcpy(bits + first / 8, &spikes, (size_t)vectors);
}

/* How a membrane is kept: by its factor, by shifts, by a single one, as it is, or not at all, because it is the first step. */
enum { ND_SCALED, ND_HALVED, ND_HALF, ND_WHOLE, ND_FRESH };

/* As fire_single_plain(), with currents that wrap around, of channels from 'first' on, eight in each of the vectors; without
 * 'limits', neither register leaves its 24 bits. */
ND_TARGET_AVX2 ND_INLINE void fire_channels_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, int first, const int vectors,
    const int keeps, const int limits) {
    const int channels = layer->channels, wraps = layer->wraps;
    const int64_t mask_bytes = ND_MASK_BYTES(channels);
    const __m256i top = _mm256_set1_epi32(ND_LIMIT - 1), bottom = _mm256_set1_epi32(1 - ND_LIMIT);
    const __m128i halvings = _mm_cvtsi32_si128(layer->halvings), others = _mm_cvtsi32_si128(32 - layer->halvings);
    __m256i keep[4], bias[4], threshold[4];
#pragma GCC unroll 4
    for (int k = 0; k < vectors; k++) {
        keep[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->v_keep + first + 8 * k));
        bias[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->bias + first + 8 * k));
        threshold[k] = _mm256_loadu_si256((const __m256i *)(const void *)(layer->threshold + first + 8 * k));
    }
    sums += first;
    v += first;
    for (int place = 0; place < places; place++, sums += channels, v += channels) {
        __m256i fired[4];
#pragma GCC unroll 4
        for (int k = 0; k < vectors; k++) {
            __m256i *membrane = (__m256i *)(void *)(v + 8 * k);
            __m256i x = _mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(sums + 8 * k)), 6);
            if (limits && wraps) x = wrapped_avx2(x, ND_LIMIT);
            x = _mm256_add_epi32(x, bias[k]);
            if (keeps != ND_FRESH) {
                const __m256i before = _mm256_loadu_si256(membrane);
                const __m256i kept = keeps == ND_WHOLE    ? before
                                     : keeps == ND_HALF   ? half_avx2(before)
                                     : keeps == ND_HALVED ? halved_avx2(before, halvings, others)
                                                          : decayed_membrane_avx2(before, keep[k]);
                x = _mm256_add_epi32(x, kept);
            }
            if (limits) x = _mm256_max_epi32(_mm256_min_epi32(x, top), bottom);
            fired[k] = _mm256_cmpgt_epi32(x, threshold[k]);
            _mm256_storeu_si256(membrane, _mm256_andnot_si256(fired[k], x));
        }
        const uint32_t spikes = spikes_avx2(fired, out ? out + (int64_t)place * channels + first : 0, vectors);
        if (bits) keep_spikes(bits + place * mask_bytes, first, spikes, vectors);
    }
}

ND_TARGET_AVX2 ND_INLINE void fire_single_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int32_t *v, uint8_t *out, uint8_t *bits, const int keeps,
    const int limits) {
    int first = 0;
    for (; first + 2 * ND_LANES <= layer->channels; first += 2 * ND_LANES)
        fire_channels_avx2(layer, sums, places, v, out, bits, first, 4, keeps, limits);
    if (first < layer->channels) fire_channels_avx2(layer, sums, places, v, out, bits, first, 2, keeps, limits);
}

ND_TARGET_AVX2 ND_INLINE void fire_avx2(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out,
    uint8_t *bits) {
    if (layer->levels == 1 && !layer->u_remembers) {
        const int limits = layer->clips || layer->wraps;
        if (bits && layer->unread) out = 0;
        if (!step && limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_FRESH, 1);
        else if (!step) fire_single_avx2(layer, sums, places, v, out, bits, ND_FRESH, 0);
        else if (layer->halvings < 0) fire_single_avx2(layer, sums, places, v, out, bits, ND_SCALED, 1);
        else if (layer->halvings > 1) fire_single_avx2(layer, sums, places, v, out, bits, ND_HALVED, 1);
        else if (!layer->halvings && limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_WHOLE, 1);
        else if (!layer->halvings) fire_single_avx2(layer, sums, places, v, out, bits, ND_WHOLE, 0);
        else if (limits) fire_single_avx2(layer, sums, places, v, out, bits, ND_HALF, 1);
        else fire_single_avx2(layer, sums, places, v, out, bits, ND_HALF, 0);
        return;
    }
    fire_plain(layer, sums, places, step, u, v, out, 0);
    if (bits) pack_plain(out, places, layer->channels, bits);
}

/* As count_plain(), of neurons with one level. */
ND_TARGET_AVX2 ND_INLINE void count_channels_avx2(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits, int first, const int vectors) {
    const int channels = layer->channels;
    for (int place = 0; place < places; place++) {
        __m256i fired[4];
#pragma GCC unroll 4
        for (int k = 0; k < vectors; k++) {
            const int at = first + 8 * k;
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(sums + place * channels + at));
            if (layer->wraps) x = wrapped_avx2(x, ND_LIMIT >> 6);
            fired[k] = _mm256_cmpgt_epi32(x, _mm256_loadu_si256((const __m256i *)(const void *)(layer->threshold + at)));
        }
        const uint32_t spikes = spikes_avx2(fired, out ? out + place * channels + first : 0, vectors);
        if (bits) keep_spikes(bits + place * ND_MASK_BYTES(channels), first, spikes, vectors);
    }
}

ND_TARGET_AVX2 ND_INLINE void count_avx2(
    const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    if (layer->levels != 1) { /* such counts are never wanted as bits */
        count_plain(layer, sums, places, out, 0);
        return;
    }
    if (bits && layer->unread) out = 0;
    int first = 0;
    for (; first + 2 * ND_LANES <= layer->channels; first += 2 * ND_LANES)
        count_channels_avx2(layer, sums, places, out, bits, first, 4);
    if (first < layer->channels) count_channels_avx2(layer, sums, places, out, bits, first, 2);
}
