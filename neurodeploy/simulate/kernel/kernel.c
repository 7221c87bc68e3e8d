/* Convolution and LIF of one layer, fused over all time steps, on integers only.
 *
 * The arithmetic is that of neurodeploy/simulate/reference.py, bit for bit. The caller has proved that no int32
 * overflows here: sums stay below 2^23, the register u below 2^30. Output places are independent, so rows are spread
 * over threads and every thread writes rows of its own.
 *
 * Each instruction path has its own sum over a convolution's taps ("term"); the paths share the walk over a row.
 */
#include "kernel.h"

#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#define ND_X86 1
#include <immintrin.h>
#endif

#define ND_LIMIT (1 << 23)
#define ND_INLINE static inline __attribute__((always_inline))

/* ---- the neuron, in plain C: compilers turn the loops over channels into vector code ---- */

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

/* Counts of neurons that keep nothing between steps: populations whose threshold the current exceeds. */
ND_INLINE void count_plain(const nd_layer *layer, const int32_t *sums, int places, uint8_t *out) {
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

/* One step of neurons with memory. u: [place][channels]; v: [place][levels][channels]. */
ND_INLINE void fire_plain(const nd_layer *layer, const int32_t *sums, int places, int32_t *u, int32_t *v, uint8_t *out) {
    const int channels = layer->channels, levels = layer->levels;
    for (int place = 0; place < places; place++, sums += channels, u += channels, out += channels) {
        for (int first = 0; first < channels; first += ND_LANES) {
            int32_t current[ND_LANES], count[ND_LANES] = {0};
            for (int lane = 0; lane < ND_LANES; lane++) {
                const int32_t before = layer->u_remembers ? decayed(u[first + lane], layer->u_keep[first + lane]) : 0;
                current[lane] = wrapped(before + sums[first + lane] * 64, ND_LIMIT);
                u[first + lane] = current[lane];
            }
            for (int level = 0; level < levels; level++) {
                int32_t *membrane = v + ((int64_t)place * levels + level) * channels + first;
                const int32_t *bias = layer->bias + (int64_t)level * channels + first;
                for (int lane = 0; lane < ND_LANES; lane++) {
                    int32_t x = decayed(membrane[lane], layer->v_keep[first + lane]) + current[lane] + bias[lane];
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

/* The walk over one row of outputs, eight places at a time, all steps of a block before the next block. */
#define ND_DEFINE_ROW(NAME, ATTRIBUTES, TERM, COUNT, FIRE)                                                             \
    ATTRIBUTES static void NAME(const nd_layer *layer, int row, int32_t *scratch) {                                    \
        const int channels = layer->channels;                                                                          \
        int32_t *sums = scratch, *u = sums + ND_PIXELS * channels, *v = u + ND_PIXELS * channels;                      \
        for (int column = 0; column < layer->columns; column += ND_PIXELS) {                                           \
            const int places = layer->columns - column < ND_PIXELS ? layer->columns - column : ND_PIXELS;              \
            if (layer->remembers) memset(u, 0, sizeof(int32_t) * ND_PIXELS * channels * (1 + (size_t)layer->levels));  \
            for (int step = 0; step < layer->steps; step++) {                                                          \
                for (int k = 0; k < layer->term_count && !(step && layer->constant); k++) {                            \
                    const nd_term *term = layer->terms + k;                                                            \
                    const uint8_t *source = (const uint8_t *)term->source + step * term->step_bytes                    \
                                            + row * term->row_bytes + column * term->place_bytes;                      \
                    TERM(layer, term, source, sums, places, k > 0);                                                    \
                }                                                                                                      \
                uint8_t *out = (uint8_t *)layer->out + step * layer->out_step + row * layer->out_row                   \
                               + (int64_t)column * channels * (layer->levels ? 1 : 4);                                 \
                if (!layer->levels) read_plain(layer, sums, places, step, (int32_t *)(void *)out);           \
                else if (layer->remembers) FIRE(layer, sums, places, u, v, out);                                       \
                else COUNT(layer, sums, places, out);                                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }

/* ---- plain C: adds the weights of one input at a time, so that silent inputs cost nothing ---- */

ND_INLINE void term_plain(const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    const int channels = layer->channels;
    for (int place = 0; place < places; place++, sums += channels, source += term->place_bytes) {
        const int16_t *weights = term->weights;
        if (!add) memset(sums, 0, sizeof(int32_t) * channels);
        for (int row = 0; row < term->rows; row++) {
            for (int column = 0; column < term->columns; column++) {
                const uint8_t *tap = source + (int64_t)row * term->row_dilation * term->row_bytes
                                     + (int64_t)column * term->column_dilation * term->place_bytes;
                for (int input = 0; input < term->groups; input++, weights += channels) {
                    const int16_t value = term->graded ? ((const int16_t *)(const void *)tap)[input] : tap[input];
                    if (!value) continue;
                    for (int channel = 0; channel < channels; channel++) sums[channel] += value * weights[channel];
                }
            }
        }
    }
}

ND_DEFINE_ROW(row_plain, , term_plain, count_plain, fire_plain)

/* Sixteen counts at once; GCC and clang have such vectors on every machine. */
typedef uint8_t nd_bytes __attribute__((vector_size(ND_LANES)));

ND_INLINE nd_bytes bytes_at(const uint8_t *at) {
    nd_bytes value;
    memcpy(&value, at, sizeof value);
    return value;
}

ND_INLINE void widen(uint32_t *sums, nd_bytes added) {
    for (int lane = 0; lane < ND_LANES; lane++) sums[lane] += added[lane];
}

/* Sums of counts along a row: bytes are added as bytes for as many columns as fit, then widened. */
ND_INLINE void tally_row(const nd_tally *tally, int row) {
    const int channels = tally->channels, steps = tally->steps, most = 255 / tally->levels;
    const int64_t place_bytes = tally->place_bytes, step_sums = (int64_t)tally->rows * channels;
    uint32_t *ever = tally->ever + (int64_t)row * channels, *sums = tally->sums + (int64_t)row * channels;
    memset(ever, 0, sizeof(uint32_t) * channels);
    for (int step = 0; step < steps; step++) memset(sums + step * step_sums, 0, sizeof(uint32_t) * channels);
    for (int column = 0; column < tally->columns; column += most) {
        const int places = tally->columns - column < most ? tally->columns - column : most;
        const uint8_t *block = tally->counts + row * tally->row_bytes + column * place_bytes;
        for (int first = 0; first < channels; first += ND_LANES) {
            for (int step = 0; step < steps; step++) {
                const uint8_t *counts = block + step * tally->step_bytes + first;
                nd_bytes added = {0}, active = {0};
                for (int place = 0; place < places; place++, counts += place_bytes) {
                    const nd_bytes here = bytes_at(counts);
                    added += here;
                    active -= (nd_bytes)(here != 0);
                }
                widen(sums + step * step_sums + first, added);
                if (steps == 1) widen(ever + first, active);
            }
            if (steps == 1) continue;
            nd_bytes active = {0};
            for (int place = 0; place < places; place++) {
                const uint8_t *counts = block + place * place_bytes + first;
                nd_bytes joined = {0};
                for (int step = 0; step < steps; step++) joined |= bytes_at(counts + step * tally->step_bytes);
                active -= (nd_bytes)(joined != 0);
            }
            widen(ever + first, active);
        }
        for (int step = 0; step < steps; step++) {
            const uint8_t *counts = block + step * tally->step_bytes;
            uint8_t *any = tally->any + ((int64_t)step * tally->rows + row) * tally->columns + column;
            for (int place = 0; place < places; place++, counts += place_bytes) {
                nd_bytes joined = {0};
                for (int first = 0; first < channels; first += ND_LANES) joined |= bytes_at(counts + first);
                uint64_t halves[2];
                memcpy(halves, &joined, sizeof halves);
                any[place] = (halves[0] | halves[1]) != 0;
            }
        }
    }
}

static void tally_plain(const nd_tally *tally, int row) { tally_row(tally, row); }

#ifdef ND_X86
#include "x86.h"
#endif

/* ---- the doors ---- */

typedef void (*nd_row)(const nd_layer *, int, int32_t *);
typedef void (*nd_tally_row)(const nd_tally *, int);

int nd_abi(void) { return (int)(sizeof(nd_layer) * 1000000 + sizeof(nd_term) * 1000 + sizeof(nd_tally)); }

int nd_threaded(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int nd_paths(void) {
    int found = ND_PLAIN;
#ifdef ND_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found |= ND_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512vnni")) found |= ND_AVX512;
#endif
    return found;
}

static nd_row row_of(int path) {
    if (!(path & nd_paths())) return 0;
#ifdef ND_X86
    if (path == ND_AVX512) return row_avx512;
    if (path == ND_AVX2) return row_avx2;
#endif
    return path == ND_PLAIN ? row_plain : 0;
}

int nd_run_layer(const nd_layer *layer, int path, int threads) {
    const nd_row run = row_of(path);
    if (!run) return 1;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int32_t *scratch = layer->scratch + omp_get_thread_num() * layer->scratch_stride;
#pragma omp for schedule(dynamic, 1)
        for (int row = 0; row < layer->rows; row++) run(layer, row, scratch);
    }
#else
    (void)threads;
    for (int row = 0; row < layer->rows; row++) run(layer, row, layer->scratch);
#endif
    return 0;
}

int nd_run_tally(const nd_tally *tally, int path, int threads) {
    nd_tally_row run = tally_plain;
    if (!(path & nd_paths())) return 1;
#ifdef ND_X86
    if (path != ND_PLAIN) run = tally_avx2;
#endif
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 4)
#else
    (void)threads;
#endif
    for (int row = 0; row < tally->rows; row++) run(tally, row);
    return 0;
}
