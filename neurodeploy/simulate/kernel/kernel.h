/* What the kernel is given: one layer of an integer network over all its time steps.
 *
 * The loader in library.py mirrors these structures; nd_abi() lets it see whether both speak of the same ones.
 */
#ifndef NEURODEPLOY_KERNEL_H
#define NEURODEPLOY_KERNEL_H

#include <stdint.h>

/* Output places that are computed together, and the multiple that channels are padded to. */
#define ND_PIXELS 8
#define ND_LANES 16

/* Instruction paths, as bits. */
enum { ND_PLAIN = 1, ND_AVX2 = 2, ND_AVX512 = 4 };

/* A convolution that contributes to the current of a layer.
 *
 * Weights of the plain path are int16 [row][column][input][channels]. Those of the others are groups of four bytes,
 * [row][column][group][channels][4]: four inputs of int8 for spike counts, two of int16 for graded codes.
 */
typedef struct {
    const void *source;    /* what the first tap of the first output place reads in step 0 */
    const void *weights;
    int64_t step_bytes;    /* from one time step to the next; 0 where the source is the same in all steps */
    int64_t row_bytes;
    int64_t place_bytes;
    int32_t rows, columns; /* of the kernel */
    int32_t row_dilation, column_dilation;
    int32_t groups;        /* groups a tap, or inputs a tap on the plain path */
    int32_t graded;        /* the source holds int16 codes, else uint8 counts */
    int32_t shift;         /* the sum is shifted left by this: weights may be stored halved */
    int32_t run;           /* groups whose products int16 lanes can add without overflow */
} nd_term;

typedef struct {
    const nd_term *terms;
    const int32_t *v_keep;    /* [channels], 4096 - v_decay */
    const int32_t *u_keep;    /* [channels], 4096 - i_decay */
    const int32_t *bias;      /* [levels][channels], already shifted by 6 bits */
    const int32_t *threshold; /* remembers: [channels], of the membrane; else [levels][channels], of the current */
    void *out;                /* uint8 counts of step 0, or int32 sums over all steps where there are no levels */
    int64_t out_step, out_row; /* bytes; the readout's out_step is 0 */
    int32_t *scratch;         /* what one thread needs, times the threads */
    int64_t scratch_stride;   /* of one thread, in int32 */
    int32_t term_count;
    int32_t steps;
    int32_t rows, columns;    /* of the output */
    int32_t channels;         /* a multiple of ND_LANES */
    int32_t levels;           /* threshold populations; 0 for the readout */
    int32_t remembers;        /* a step sees what the one before left */
    int32_t u_remembers;      /* the current does */
    int32_t wraps;            /* the current may leave its 24 bits */
    int32_t constant;         /* no source changes between steps */
} nd_layer;

int nd_abi(void);
int nd_paths(void);
int nd_threaded(void);
int nd_run_layer(const nd_layer *layer, int path, int threads);

/* Sums of spike counts over the columns of each row.
 *
 * counts: uint8 [steps][rows][columns][channels] with the strides given, values up to levels.
 * sums: uint32 [steps][rows][channels]; ever: uint32 [rows][channels], places that are not 0 in some step;
 * any: uint8 [steps][rows][columns], not 0 where a channel is not 0.
 */
typedef struct {
    const uint8_t *counts;
    uint32_t *sums;
    uint32_t *ever;
    uint8_t *any;
    int64_t step_bytes, row_bytes, place_bytes;
    int32_t steps, rows, columns, channels, levels;
} nd_tally;

int nd_run_tally(const nd_tally *tally, int path, int threads);

#endif
