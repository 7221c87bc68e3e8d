/* The neurons and the readout, in plain C: compilers turn the loops over channels into vector code; part of kernel.c. */

/* x * keep / 4096, truncated toward zero, without 64-bit products: |x| up to 2^31, keep 0..4096. */
ND_INLINE int32_t decayed(int32_t x, int32_t keep) {
    const uint32_t magnitude = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
    const uint32_t kept = (magnitude >> 12) * (uint32_t)keep + (((magnitude & 4095u) * (uint32_t)keep) >> 12);
    return (int32_t)(x < 0 ? 0u - kept : kept);
}

/* One wrap-around of a 24-bit register in which +2^23 is legal and -2^23 is not; 'unit' is 1 << 23 in its units. */
ND_INLINE int32_t wrapped(int32_t x, int32_t unit) {
    return x > unit ? x - 2 * unit : x <= -unit ? x + 2 * unit : x;
}

/* Counts of neurons that keep nothing between steps: populations whose threshold the current exceeds. 'bits': where spikes are
 * wanted as bits, too, or 0; here and in plain neurons they wait for pack_plain(). */
ND_INLINE void count_plain(const nd_layer *layer, const int32_t *sums, int places, uint8_t *out, uint8_t *bits) {
    (void)bits;
    const int channels = layer->channels;
    for (int place = 0; place < places; place++, sums += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            int32_t count[ND_LANES] = {0};
            for (int level = 0; level < layer->levels; level++) {
                const int32_t *threshold = layer->threshold + (int64_t)level * channels + first;
                for (int lane = 0; lane < ND_LANES; lane++) {
                    const int32_t current = layer->wraps ? wrapped(sums[first + lane], ND_LIMIT >> 6) : sums[first + lane];
                    count[lane] += current > threshold[lane];
                }
            }
            for (int lane = 0; lane < ND_LANES; lane++) out[first + lane] = (uint8_t)count[lane];
        }
    }
}

/* One step of one population whose current is forgotten after a step and stays inside its register: the commonest
 * neuron. Channels of one vector after the other, so that what belongs to a channel is read once. */
ND_INLINE void fire_single_plain(
    const nd_layer *layer, const int32_t *restrict sums, int places, int step, int32_t *restrict v,
    uint8_t *restrict out) {
    const int channels = layer->channels;
    for (int first = 0; first < channels; first += ND_LANES) {
        int32_t keep[ND_LANES], bias[ND_LANES], threshold[ND_LANES];
        memcpy(keep, layer->v_keep + first, sizeof keep);
        memcpy(bias, layer->bias + first, sizeof bias);
        memcpy(threshold, layer->threshold + first, sizeof threshold);
        for (int place = 0; place < places; place++) {
            const int32_t *sum = sums + place * channels + first;
            int32_t *membrane = v + place * channels + first;
            int32_t next[ND_LANES], fired[ND_LANES];
            for (int lane = 0; lane < ND_LANES; lane++) {
                int32_t x = (step ? decayed(membrane[lane], keep[lane]) : 0) + sum[lane] * 64 + bias[lane];
                x = x > ND_LIMIT - 1 ? ND_LIMIT - 1 : x < 1 - ND_LIMIT ? 1 - ND_LIMIT : x;
                fired[lane] = x > threshold[lane];
                next[lane] = x > threshold[lane] ? 0 : x;
            }
            memcpy(membrane, next, sizeof next);
            for (int lane = 0; lane < ND_LANES; lane++) out[place * channels + first + lane] = (uint8_t)fired[lane];
        }
    }
}

/* One step of neurons with memory; before step 0 all state is 0. u: [place][channels]; v: [place][levels][channels]. */
ND_INLINE void fire_plain(
    const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *u, int32_t *v, uint8_t *out, uint8_t *bits) {
    const int channels = layer->channels, levels = layer->levels;
    (void)bits;
    if (levels == 1 && !layer->u_remembers && !layer->wraps) {
        if (step) fire_single_plain(layer, sums, places, 1, v, out);
        else fire_single_plain(layer, sums, places, 0, v, out);
        return;
    }
    for (int place = 0; place < places; place++, sums += channels, u += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            int32_t current[ND_LANES], count[ND_LANES] = {0};
            for (int lane = 0; lane < ND_LANES; lane++) {
                const int32_t before =
                    step && layer->u_remembers ? decayed(u[first + lane], layer->u_keep[first + lane]) : 0;
                current[lane] = wrapped(before + sums[first + lane] * 64, ND_LIMIT);
                u[first + lane] = current[lane];
            }
            for (int level = 0; level < levels; level++) {
                int32_t *membrane = v + ((int64_t)place * levels + level) * channels + first;
                const int32_t *bias = layer->bias + (int64_t)level * channels + first;
                for (int lane = 0; lane < ND_LANES; lane++) {
                    int32_t x = (step ? decayed(membrane[lane], layer->v_keep[first + lane]) : 0) + current[lane] + bias[lane];
                    x = x > ND_LIMIT - 1 ? ND_LIMIT - 1 : x < 1 - ND_LIMIT ? 1 - ND_LIMIT : x;
                    const int32_t fired = x > layer->threshold[first + lane];
                    membrane[lane] = fired ? 0 : x;
                    count[lane] += fired;
                }
            }
            for (int lane = 0; lane < ND_LANES; lane++) out[first + lane] = (uint8_t)count[lane];
        }
    }
}

/* The readout: sums over time steps. */
ND_INLINE void read_plain(const nd_layer *layer, const int32_t *sums, int places, int step, int32_t *out) {
    const int count = places * layer->channels;
    for (int i = 0; i < count; i++) out[i] = step ? out[i] + sums[i] : sums[i];
}
