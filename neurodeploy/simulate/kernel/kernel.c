/* Convolution and LIF, fused over all time steps of a layer, on integers only.
 *
 * The arithmetic is that of neurodeploy/simulate/reference.py, bit for bit. The caller has proved that no int32
 * overflows here: sums stay below 2^23, the register u below 2^30. Output places are independent, so rows are spread
 * over threads and every thread writes rows of its own.
 *
 * Each instruction path has its own sum over a convolution's taps ("term"); the paths share the walk over a row.
 */
#define _DEFAULT_SOURCE /* syscall(), clock_gettime() */
#include "kernel.h"

#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#define ND_X86 1
#include <immintrin.h>
#if defined(__linux__) && !defined(ND_WITHOUT_AMX)
#define ND_TILED 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#if defined(__aarch64__) && defined(__GNUC__) && !defined(__AARCH64EB__)
#define ND_ARM 1
#include <arm_neon.h>
#endif

#define ND_LIMIT (1 << 23)
#define ND_INLINE static inline __attribute__((always_inline))

#include "neurons.h"

#include "bytes.h"

/* What one thread needs, in words of int32 from the start of its scratch: 'found' is ND_FOUND, and spikes of the steps. */
typedef struct {
    int64_t u, v, narrow, tally, found, list, summed, end;
} nd_places;

/* Of the tally of a row: sums of channels, bytes of channels, spikes of steps, and 64 bytes of each step. */
ND_INLINE int64_t nd_tally_size(const nd_layer *layer) { return 2 * (int64_t)layer->channels + 18 * (int64_t)layer->steps; }

ND_INLINE int64_t nd_found_size(const nd_layer *layer) { return ND_FOUND((int64_t)layer->steps, layer->link_count); }

/* Entries of 16 bits in the list of one column: its spikes, and what is written too much behind them. */
ND_INLINE int64_t nd_list_size(const nd_term *term) { return (int64_t)term->rows * term->inputs + 64; }

ND_INLINE nd_places places_of(const nd_layer *layer) {
    const int64_t block = (int64_t)ND_BLOCK_MOST * layer->channels;
    int64_t list = 0, summed = 0;
    for (int k = 0; k < layer->term_count; k++) {
        const nd_term *term = layer->terms + k;
        const int64_t entries = (ND_PIXELS + 2) * nd_list_size(term) / 2;
        const int64_t reach = (int64_t)(term->columns - 1) * term->column_dilation;
        const int64_t bytes = term->rows * (ND_BLOCK_MOST + reach) * term->place_bytes + 64;
        if (entries > list) list = entries;
        if (layer->summed && bytes > 4 * summed) summed = (bytes + 3) / 4;
    }
    nd_places at;
    at.u = 2 * block;
    at.v = at.u + block;
    at.narrow = at.v + block * layer->levels;
    at.tally = at.narrow + block / 2;
    at.found = at.tally + nd_tally_size(layer);
    at.list = (at.found + 2 * (nd_found_size(layer) + layer->steps) + 15) / 16 * 16;
    at.summed = at.list + list;
    at.end = at.summed + summed;
    for (int k = 0; k < layer->arrival_count; k++) {
        const int64_t words = 2 * ND_RECEIVING((int64_t)layer->columns, layer->arrivals[k].columns);
        if (words > at.end) at.end = words;
    }
    at.end = (at.end + 15) / 16 * 16;
    return at;
}

int64_t nd_scratch(const nd_layer *layer) { return places_of(layer).end; }

/* The term that reads the sums of a block of the readout: its rows lie behind one another. */
ND_INLINE nd_term summed_term(const nd_term *term, int places) {
    nd_term read = *term;
    read.row_bytes = (places + (int64_t)(term->columns - 1) * term->column_dilation) * term->place_bytes;
    read.row_dilation = 1;
    return read;
}

/* Sums over all steps of what a block of the readout reads. read: summed_term() */
ND_INLINE void add_steps(
    const nd_layer *layer, const nd_term *term, const nd_term *read, const uint8_t *source, int first_row, int first_column,
    uint8_t *sums) {
    (void)first_row, (void)first_column;
    for (int row = 0; row < term->rows; row++, sums += read->row_bytes) {
        const uint8_t *line = source + (int64_t)row * term->row_dilation * term->row_bytes;
        memcpy(sums, line, (size_t)read->row_bytes);
        for (int step = 1; step < layer->steps; step++) {
            const uint8_t *counts = line + step * term->step_bytes;
            for (int64_t i = 0; i < read->row_bytes; i++) sums[i] = (uint8_t)(sums[i] + counts[i]);
        }
    }
}

/* Bits that are set in whole words of 64. */
ND_INLINE int64_t ones_of(const uint8_t *masks, int bytes) {
    int64_t total = 0;
    for (int i = 0; i < bytes; i += 8) total += __builtin_popcountll(mask_at(masks + i));
    return total;
}

/* Whether a source brings nothing in a step: no code that is not 0, or no spike anywhere. */
ND_INLINE int is_silent(const nd_term *term, int step) {
    return (term->reads && !term->shown[step]) || (term->form && term->form[step] == ND_NOTHING);
}

/* A convolution of one synapse a channel. */
ND_INLINE void add_alone(const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    const int channels = layer->channels;
    for (int place = 0; place < places; place++, sums += channels, source += term->next_place) {
        if (add) for (int channel = 0; channel < channels; channel++) sums[channel] += term->alone[channel] * source[channel];
        else for (int channel = 0; channel < channels; channel++) sums[channel] = term->alone[channel] * source[channel];
    }
}

/* The walk over one row of outputs, BLOCK places at a time, all steps of a block before the next block. Blocks are read and
 * computed whole, whatever lies behind the row. Spikes are counted, and where neurons have not written them as bits made bits of,
 * when the row is done: vectors that are read again at once, in larger pieces than they were written in, would have to wait for
 * the cache. */
#define ND_DEFINE_ROW(NAME, ATTRIBUTES, TERM, SUM, EVENTS, COUNT, FIRE, PACK, TALLY, BLOCK)                                    \
    ATTRIBUTES static void NAME(const nd_layer *layer, int row, int32_t *scratch) {                                            \
        const int channels = layer->channels, steps = layer->summed ? 1 : layer->steps;                                        \
        const nd_places at = places_of(layer);                                                                                 \
        int32_t *sums = scratch;                                                                                               \
        uint8_t *summed = (uint8_t *)(scratch + at.summed);                                                                    \
        int64_t *found = (int64_t *)(void *)(scratch + at.found);                                                              \
        for (int column = 0; column < layer->columns; column += BLOCK) {                                                       \
            const int places = layer->columns - column < BLOCK ? layer->columns - column : BLOCK;                              \
            for (int step = 0; step < steps; step++) {                                                                         \
                for (int k = 0; k < layer->term_count && !(step && layer->constant); k++) {                                    \
                    const nd_term *term = layer->terms + k;                                                                    \
                    const uint8_t *source = (const uint8_t *)term->source + step * term->step_bytes                            \
                                            + row * term->next_row + column * term->next_place;                                \
                    if (!layer->summed && is_silent(term, step)) {                                                             \
                        if (!k) memset(sums, 0, sizeof *sums * (size_t)(BLOCK * channels));                                    \
                    } else if (term->alone && !layer->summed && !term->bits) {                                                 \
                        add_alone(layer, term, source, sums, places, k > 0);                                                   \
                    } else if (layer->summed) {                                                                                \
                        const nd_term read = summed_term(term, BLOCK);                                                         \
                        SUM(layer, term, &read, source, row, column, summed);                                                  \
                        TERM(layer, &read, summed, sums, places, k > 0);                                                       \
                    } else if (term->form && (term->form[step] || term->sets || term->bits)) {                                 \
                        const uint8_t *masks = term->masks + step * term->mask_step + row * term->mask_row                     \
                                               + column * term->mask_place;                                                    \
                        const int part = term->joined ? places : ND_PIXELS;                                                    \
                        for (int start = 0; start < places; start += part, masks += part * term->mask_place)                   \
                            EVENTS(layer, term, masks, sums + (int64_t)start * channels,                                       \
                                   places - start < part ? places - start : part, k > 0, term->form[step],                     \
                                   (int16_t *)(void *)(scratch + at.narrow), (uint16_t *)(void *)(scratch + at.list));         \
                    } else {                                                                                                   \
                        TERM(layer, term, source, sums, places, k > 0);                                                        \
                    }                                                                                                          \
                }                                                                                                              \
                uint8_t *out = (uint8_t *)layer->out + step * layer->out_step + row * layer->out_row                           \
                               + (int64_t)column * channels * (layer->levels ? 1 : 4);                                         \
                if (!layer->levels) {                                                                                          \
                    read_plain(layer, sums, places, step, (int32_t *)(void *)out);                                             \
                    continue;                                                                                                  \
                }                                                                                                              \
                uint8_t *bits = layer->masks ? layer->masks + step * layer->mask_step + row * layer->mask_row                  \
                                                   + column * ND_MASK_BYTES(channels)                                          \
                                             : 0;                                                                              \
                if (layer->remembers) FIRE(layer, sums, places, step, scratch + at.u, scratch + at.v, out, bits);              \
                else COUNT(layer, sums, places, out, bits);                                                                    \
            }                                                                                                                  \
        }                                                                                                                      \
        for (int step = 0; layer->masks && step < steps; step++) {                                                             \
            const uint8_t *out = (uint8_t *)layer->out + step * layer->out_step + row * layer->out_row;                        \
            uint8_t *masks = layer->masks + step * layer->mask_step + row * layer->mask_row;                                   \
            PACK(out, layer->columns, channels, masks);                                                                        \
            found[nd_found_size(layer) + step] += ones_of(masks, layer->columns * ND_MASK_BYTES(channels));                    \
        }                                                                                                                      \
        if (layer->counting && layer->found && row >= layer->first_row && row < layer->end_row)                                \
            TALLY(row)(layer, row, (uint32_t *)scratch + at.tally, found);                                                     \
    }

/* ---- plain C: adds the weights of one input at a time, so that silent inputs cost nothing ---- */

ND_INLINE void term_plain(const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    const int channels = layer->channels;
    for (int place = 0; place < places; place++, sums += channels, source += term->next_place) {
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

/* Eight bytes that are 0 or 1, as bits. */
ND_INLINE uint64_t packed(const uint8_t *at) {
    return (in_order(mask_at(at)) * 0x0102040810204080u) >> 56;
}

/* Counts of a block of places that are 0 or 1, as bits. */
ND_INLINE void pack_plain(const uint8_t *counts, int places, int channels, uint8_t *masks) {
    for (int place = 0; place < places; place++, counts += channels, masks += ND_MASK_BYTES(channels)) {
        for (int first = 0; first < channels; first += 64) {
            const int size = channels - first < 64 ? channels - first : 64;
            uint64_t mask = 0;
            for (int k = 0; k < size; k += 8) mask |= packed(counts + first + k) << k;
            memcpy(masks + first / 8, &mask, sizeof mask);
        }
    }
}

/* Entries of a list count in units of this many bytes. */
#define ND_ENTRY (2 * ND_LANES)

/* Writes 'first' + channel * 'entries' for every channel that spikes; returns the end of the list. */
ND_INLINE uint16_t *list_plain(const uint8_t *masks, int inputs, unsigned first, unsigned entries, uint16_t *end) {
    for (int start = 0; start < inputs; start += 64, masks += 8) {
        for (uint64_t mask = mask_at(masks); mask; mask &= mask - 1)
            *end++ = (uint16_t)(first + (unsigned)(start + __builtin_ctzll(mask)) * entries);
    }
    return end;
}

#define ND_E(name) name##_plain
#define ND_ATTRIBUTES
#define ND_NARROW 8
#define ND_WIDE 4
#define ND_LIST list_plain
#include "events.h"
#include "count.h"
#include "tally.h"
#undef ND_E
#undef ND_ATTRIBUTES
#undef ND_NARROW
#undef ND_WIDE
#undef ND_LIST

#define tally_plain(NAME) tally_##NAME##_plain
ND_DEFINE_ROW(row_plain, , term_plain, add_steps, events_plain, count_plain, fire_plain, pack_plain, tally_plain, ND_PIXELS)

#ifdef ND_X86
#include "x86.h"
#ifdef ND_TILED
#include "amx.h"
#endif
#endif

#ifdef ND_ARM
#include "neon.h"
#endif

/* ---- the doors ---- */

typedef void (*nd_row)(const nd_layer *, int, int32_t *);

#ifndef ND_SOURCES
#define ND_SOURCES 0
#endif

int64_t nd_sources(void) { return ND_SOURCES; }

int nd_threaded(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

static int paths_of_machine(void) {
    int found = ND_PLAIN;
#ifdef ND_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi")) found |= ND_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi")) {
        found |= ND_AVX512;
        if (__builtin_cpu_supports("avx512vbmi2")) found |= ND_VBMI2;
    }
#ifdef ND_TILED
    if (found & ND_VBMI2 && amx_usable()) found |= ND_AMX;
#endif
#endif
#ifdef ND_ARM
    found |= arm_paths();
#endif
    return found;
}

int nd_paths(void) {
    static int known; /* asking may leave a virtual machine; every thread finds the same */
    if (!known) known = paths_of_machine();
    return known;
}

static nd_row row_of(int path) {
    if (!(path & nd_paths())) return 0;
#ifdef ND_X86
#ifdef ND_TILED
    if (path == ND_AMX) return row_amx;
#endif
    if (path == ND_VBMI2) return row_vbmi2;
    if (path == ND_AVX512) return row_avx512;
    if (path == ND_AVX2) return row_avx2;
#endif
#ifdef ND_ARM
#ifdef ND_DOTS
    if (path == ND_I8MM) return row_i8mm;
    if (path == ND_DOTPROD) return row_dotprod;
#endif
    if (path == ND_NEON) return row_neon;
#endif
    return path == ND_PLAIN ? row_plain : 0;
}

/* Runs what belongs to an instruction path. */
#ifdef ND_X86
#define ND_DISPATCH(NAME, ...)                                                \
    do {                                                                      \
        const int usable = path & nd_paths();                                 \
        if (usable & (ND_AVX512 | ND_VBMI2 | ND_AMX)) NAME##_avx512_half(__VA_ARGS__);             \
        else if (usable & ND_AVX2) NAME##_avx2(__VA_ARGS__);                 \
        else NAME##_plain(__VA_ARGS__);                                       \
    } while (0)
#else
#define ND_DISPATCH(NAME, ...) NAME##_plain(__VA_ARGS__)
#endif

void nd_count_codes(
    int path, const int64_t *codes, int64_t frame_step, int64_t channel_step, int64_t row_step, int frames, int channels,
    int rows, int columns, const nd_link *links, int link_count, uint32_t *scratch, int64_t *found) {
    ND_DISPATCH(count_codes, codes, frame_step, channel_step, row_step, frames, channels, rows, columns, links, link_count,
                scratch, found);
    (void)path;
}

void nd_receiving(
    int path, const nd_arrival *arrivals, int arrival_count, int steps, int rows, int columns, uint64_t *scratch,
    int64_t *found) {
    ND_DISPATCH(receiving, arrivals, arrival_count, steps, rows, columns, scratch, found);
    (void)path;
}

#include "network.h"
