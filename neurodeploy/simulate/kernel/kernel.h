/* What the kernel is given: one layer of an integer network over all its time steps.
 *
 * The loader in library.py mirrors these structures; nd_sources() lets it see whether both speak of the same ones.
 */
#ifndef NEURODEPLOY_KERNEL_H
#define NEURODEPLOY_KERNEL_H

#include <stdint.h>

/* Output places that are computed together, the most that a path takes at a time, and the multiple that channels are padded
 * to. */
#define ND_PIXELS 8
#define ND_BLOCK_MOST 32
#define ND_LANES 16

/* Instruction paths, as bits. */
enum { ND_PLAIN = 1, ND_AVX2 = 2, ND_AVX512 = 4, ND_VBMI2 = 8, ND_AMX = 16, ND_NEON = 32, ND_DOTPROD = 64, ND_I8MM = 128 };

/* Bytes of the spikes of one place as bits, bit c of the 64-bit words for channel c. */
#define ND_MASK_BYTES(channels) (8 * (((channels) + 63) / 64))

/* A convolution that contributes to the current of a layer.
 *
 * Weights of the plain path are int16 [row][column][input][channels]. Those of the others are groups of four bytes,
 * [row][column][group][channels][4]: four inputs of int8 for spike counts, two of int16 for graded codes. Those of the AMX path
 * for spike counts are [row][part][chunk][16][channels][4]: a part is a whole row of the kernel, or a column where columns are
 * dilated, filled up with zeros to chunks of 64 bytes of the source. Those of the paths of ARM: see neon.h.
 *
 * The event form, for sources of spikes that are 0 or 1, reads them as bits, and adds up rows of a table of its own:
 * int16 [column][row * inputs + input][channels], where one row of zeros ends every column.
 */
typedef struct {
    const void *source;    /* what the first tap of the first output place reads in step 0 */
    const void *weights;
    const int16_t *events; /* the table of the event form, or 0 */
    const uint8_t *form;   /* [steps], not 0 where the event form runs; 0 for none */
    const uint8_t *masks;  /* as 'source', but bits; 64-bit words a place */
    int64_t mask_step, mask_row, mask_place; /* bytes */
    int64_t step_bytes;    /* from one time step to the next; 0 where the source is the same in all steps */
    int64_t row_bytes;
    int64_t place_bytes;
    int64_t next_row, next_place; /* as row_bytes and place_bytes, from what one output reads to what the next one does */
    int32_t rows, columns; /* of the kernel */
    int32_t row_dilation, column_dilation;
    int32_t groups;        /* groups a tap, or inputs a tap where weights are not in groups */
    int32_t graded;        /* the source holds int16 codes, else uint8 counts */
    int32_t shift;         /* the sum is shifted left by this: weights may be stored halved */
    int32_t run;           /* groups, or inputs, whose products int16 lanes can add without overflow */
    int32_t inputs;        /* of the event form: channels of the source, a multiple of ND_LANES */
    int32_t event_shift;   /* of the event form's sum */
    int32_t narrow;        /* 16 bits hold every sum of the event form */
    int32_t parts, chunks; /* of the AMX path; 0 for weights as the others have them */
} nd_term;

typedef struct {
    const nd_term *terms;
    const int32_t *v_keep;    /* [channels], 4096 - v_decay */
    const int32_t *u_keep;    /* [channels], 4096 - i_decay */
    const int32_t *bias;      /* [levels][channels], already shifted by 6 bits */
    const int32_t *threshold; /* remembers: [channels], of the membrane; else [levels][channels], of the current */
    void *out;                /* uint8 counts of step 0, or int32 sums over all steps where there are no levels */
    int64_t out_step, out_row; /* bytes; the readout's out_step is 0 */
    uint8_t *masks;           /* the counts of a single level as bits, ND_MASK_BYTES a place; or 0 */
    int64_t mask_step, mask_row; /* bytes */
    int32_t *scratch;         /* what one thread needs, times the threads */
    int64_t scratch_stride;   /* of one thread, in int32; at least nd_scratch(), a multiple of 16 */
    uint32_t *spikes;         /* [steps][rows], of a layer with masks; or 0 */
    uint32_t *by_channel;     /* [rows][channels], spikes of all steps over the counted columns; 0 where nobody counts */
    uint64_t *by_row;         /* [steps][rows], spikes of all channels over the counted columns */
    uint64_t *ever;           /* [rows], counted places and channels with a spike in some step */
    uint8_t *marks;           /* [steps][rows][places by eight], bits: where some channel spikes, of counted places */
    int32_t term_count;
    int32_t steps;
    int32_t rows, columns;    /* of the output */
    int32_t channels;         /* a multiple of ND_LANES */
    int32_t levels;           /* threshold populations; 0 for the readout */
    int32_t remembers;        /* a step sees what the one before left */
    int32_t u_remembers;      /* the current does */
    int32_t halvings;         /* all membranes are divided by 2 this often in a step; -1 where v_keep says more */
    int32_t wraps;            /* the current may leave its 24 bits */
    int32_t constant;         /* no source changes between steps */
    int32_t summed;           /* the readout: uint8 holds the sources' sums over all steps */
    int32_t first_row, end_row, first_column, end_column; /* the counted places */
} nd_layer;

/* Spikes that have been counted: those of nd_layer, from the first counted row and column on. */
typedef struct {
    const uint32_t *by_channel;
    const uint64_t *by_row, *ever;
    const uint8_t *marks;
    const uint8_t *values;                      /* uint8 counts, [steps][rows][columns][channels] */
    int64_t row_step;                           /* elements of by_row, from one step to the next */
    int64_t mark_step, mark_row;                /* bytes */
    int64_t value_step, value_row, value_place; /* bytes */
    int32_t steps, rows, columns, channels;
    int32_t mark_bytes, reserved; /* of a row */
} nd_counted;

/* The taps of a convolution that read counted places. Rows that the same taps read are of one class, and columns too; class 0 of
 * the columns is read by all taps. */
typedef struct {
    const int32_t *row_class;   /* [rows] */
    const int32_t *row_taps;    /* [rows], how many taps read it */
    const int32_t *edges;       /* [edge_count], columns that are not of class 0 */
    const int32_t *edge_class;  /* [edge_count] */
    const int32_t *edge_missed; /* [edge_count], taps that do not read it */
    const int32_t *weights;     /* [class of columns][class of rows][channels], weights other than 0 at their taps */
    int32_t column_taps, edge_count, row_classes, reserved;
} nd_link;

/* What one source brings to neurons: where it spiked, and the convolution that reads it. */
typedef struct {
    const uint8_t *marks; /* [steps][rows][columns], 0 or 1 */
    int32_t rows, columns;
    int32_t kernel_rows, kernel_columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation;
} nd_arrival;

int64_t nd_sources(void); /* what the build says that it was made of; 0 for nothing */
int nd_paths(void);
int nd_threaded(void);

/* Words of int32 that one thread needs for a layer. */
int64_t nd_scratch(const nd_layer *layer);

/* Sums up counted spikes. totals: [steps + 1], of each step and of 'ever'; marked: [steps], places with a spike; found:
 * [links][steps + 2], for each link the taps that spikes arrive at, a step, those of 'ever', and the weights other than 0
 * that the spikes of all steps meet. path: the widest instructions to use. scratch: [channels] */
void nd_count(
    int path, const nd_counted *counted, const nd_link *links, int link_count, int64_t *totals, int64_t *marked,
    int64_t *found, uint8_t *scratch);

/* As nd_count, of values other than 0 in [frames][channels][rows][columns], int64; found: [links][2], taps that places with such
 * a value in some frame arrive at, and weights other than 0 that they meet in all frames. scratch: [columns + channels] */
void nd_count_codes(
    int path, const int64_t *codes, int64_t frame_step, int64_t channel_step, int64_t row_step, int frames, int channels, int rows,
    int columns, const nd_link *links, int link_count, uint32_t *scratch, int64_t *found);

/* How many of rows x columns outputs something arrives at, in each of the steps. scratch: [columns + those of the widest source] */
void nd_receiving(
    int path, const nd_arrival *arrivals, int arrival_count, int steps, int rows, int columns, uint8_t *scratch, int64_t *found);

int nd_run_layer(const nd_layer *layer, int path, int threads);

#endif
