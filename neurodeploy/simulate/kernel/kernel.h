/* What the kernel is given: an integer network and its input; layer by layer, all time steps of a layer at once.
 *
 * The loader in library.py mirrors these structures; nd_sources() lets it see whether both speak of the same ones.
 */
#ifndef NEURODEPLOY_KERNEL_H
#define NEURODEPLOY_KERNEL_H

#include <stdint.h>

/* Output places that are computed together, the most that a path takes at a time, and the multiple that channels are padded
 * to. */
#define ND_PIXELS 8
#define ND_BLOCK_MOST 64
#define ND_LANES 16

/* Of a step of a source that did not spike anywhere. */
#define ND_NOTHING 2

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
 * int16 [column][row * inputs + input][channels], where one row of zeros ends every column. See scan.h for kernels of three
 * columns on the AVX2 path: there the table is [column][word][65][channels], with a row of zeros behind the 64 inputs of every
 * word, and a second one, of sets, may hold sums of rows, [chunk][row][sixteen inputs][131][column][32] of chunks of 32 channels.
 */
typedef struct {
    const void *source;    /* what the first tap of the first output place reads in step 0 */
    const void *weights;
    const int16_t *events; /* the table of the event form, or 0 */
    const int16_t *sets;   /* the table of sets of the event form, or 0; where there is one, the event form runs in every step */
    const uint8_t *form;   /* [steps], not 0 where the event form runs, ND_NOTHING where no source spikes; 0 for none */
    const uint8_t *reads;  /* of codes, [channels of the input], where some weight is not 0; 0 for codes that are the same in all steps */
    uint8_t *shown;        /* with 'reads', [steps], 0 where all codes that it reads are 0; nd_run() sets it */
    const int32_t *alone;  /* [channels]: weights of a convolution of one synapse a channel; 0 for all others */
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
    int32_t thin;          /* the few outputs of an AVX2 path whose weights are [row][vector][output][32]; 0 for weights as above */
    int32_t bits;          /* the source's spikes are bits alone */
    int32_t joined;        /* rows of the source that share a word in the table of events; 0 where that has no words */
    int32_t parts, chunks; /* of the AMX path; 0 for weights as the others have them */
} nd_term;

/* The taps of a convolution that read counted places. 32 bits hold its weights times all spikes that a place can have. Rows that the same taps read are of one class, and columns too; class 0 of
 * the columns is read by all taps. */
typedef struct {
    const int32_t *row_class;   /* [rows] */
    const int32_t *row_taps;    /* [rows], how many taps read it */
    const int32_t *edges;       /* [edge_count], columns that are not of class 0 */
    const int32_t *edge_class;  /* [edge_count] */
    const int32_t *edge_missed; /* [edge_count], taps that do not read it */
    const int32_t *weights;     /* [class of columns][class of rows][channels]: of class 0, the weights other than 0 at all taps; of
                                 * others, those at the taps that do not read them */
    int32_t column_taps, edge_count, row_classes, reserved;
} nd_link;

/* What one source brings to neurons: where it spiked, and the convolution that reads it. */
typedef struct {
    const uint8_t *marks;        /* bits, [steps][rows][columns by eight], the lowest first; 0 for a source that is everywhere */
    int64_t mark_step, mark_row; /* bytes */
    int32_t rows, columns;
    int32_t kernel_rows, kernel_columns, row_stride, column_stride, row_padding, column_padding, row_dilation, column_dilation;
} nd_arrival;

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
    uint8_t *form;            /* [steps], of a layer with masks: set where it spikes less than 'few' times, to ND_NOTHING where
                               * never, see nd_term */
    int64_t few;
    int64_t wraps_from;       /* largest magnitude of a code from which on the current may leave its 24 bits */
    int64_t clips_from;       /* ... a membrane may; of neurons of which it matters */
    const nd_link *links;     /* convolutions whose arrivals are counted */
    int64_t *found;           /* what is counted: spikes [steps], and ND_FOUND says what else; 0 where nothing is */
    uint8_t *marks;           /* [steps][rows][columns by eight], bits: where some channel spikes, of counted places, from the first */
    const nd_arrival *arrivals; /* what brings something to its neurons */
    int64_t *reached;         /* [steps], outputs that something arrives at; where there are arrivals */
    int32_t term_count;
    int32_t steps;
    int32_t rows, columns;    /* of the output */
    int32_t channels;         /* a multiple of ND_LANES */
    int32_t levels;           /* threshold populations; 0 for the readout */
    int32_t remembers;        /* a step sees what the one before left */
    int32_t u_remembers;      /* the current does */
    int32_t halvings;         /* all membranes are divided by 2 this often in a step; -1 where v_keep says more */
    int32_t wraps;            /* the current may leave its 24 bits; nd_run() sets it */
    int32_t clips;            /* a membrane may; nd_run() sets it */
    int32_t constant;         /* no source changes between steps */
    int32_t unread;           /* 'out' need not be written: all is read from masks */
    int32_t summed;           /* the readout: uint8 holds the sources' sums over all steps */
    int32_t first_row, end_row, first_column, end_column; /* the counted places */
    int32_t link_count, arrival_count;
    int32_t counting;         /* 'found', 'marks' and 'reached' are wanted; nd_run() sets it */
    int32_t threads;          /* how many it is worth while to have */
} nd_layer;

/* Integers that are found of a layer: spikes of each step, then places and channels with a spike in some step; places with a
 * spike, of each step; and for each link the taps that spikes arrive at, of each step, the taps that places and channels with a
 * spike in some step arrive at, and the weights other than 0 that all spikes meet. */
#define ND_FOUND(steps, links) (2 * (steps) + 1 + (links) * ((steps) + 2))

/* A whole network, and one input of it. */
typedef struct {
    nd_layer *layers;       /* in order; the last one is the readout */
    const int64_t *codes;   /* [frames][channels][rows][columns] */
    int64_t frame_step, channel_step, row_step; /* elements */
    int16_t *held;          /* the codes as layers read them, [frames][rows][columns][channels] */
    int64_t held_frame, held_row, held_place;   /* elements */
    uint8_t *shown;         /* [frames][channels], set where some code is not 0 */
    int64_t code_max;       /* the largest magnitude with which nothing overflows */
    int64_t largest;        /* the largest that there is; nd_run() sets it */
    int64_t *total;         /* [channels][rows][columns] of the readout, its sums with 'offset' */
    const int64_t *offset;  /* [channels] */
    int32_t *scratch;       /* what one thread needs, times the threads */
    int64_t scratch_stride; /* of one thread, in int32; at least nd_scratch() of every layer, a multiple of 16 */
    int64_t *spent;         /* [layers], nanoseconds of the calling thread; or 0 */
    int32_t layer_count, frames, channels, rows, columns;
    int32_t outputs;        /* channels of the readout that are no padding */
    int32_t threads;        /* at most, those of every layer too */
    int32_t counting;
} nd_network;

int64_t nd_sources(void); /* what the build says that it was made of; 0 for nothing */
int nd_paths(void);
int nd_threaded(void);

/* Words of int32 that one thread needs for a layer. */
int64_t nd_scratch(const nd_layer *layer);

/* Counts values other than 0 in [frames][channels][rows][columns], int64; found: [links][2], taps that places with such
 * a value in some frame arrive at, and weights other than 0 that they meet in all frames. scratch: [columns + channels]
 * path: the widest instructions to use. */
void nd_count_codes(
    int path, const int64_t *codes, int64_t frame_step, int64_t channel_step, int64_t row_step, int frames, int channels, int rows,
    int columns, const nd_link *links, int link_count, uint32_t *scratch, int64_t *found);

/* How many of rows x columns outputs something arrives at, in each of the steps. scratch: ND_RECEIVING(columns, those of the
 * widest source) words */
void nd_receiving(
    int path, const nd_arrival *arrivals, int arrival_count, int steps, int rows, int columns, uint64_t *scratch, int64_t *found);
#define ND_RECEIVING(columns, widest) (((columns) + 63) / 64 + ((widest) + 63) / 64 + 2)

/* Runs a network: 0, or 1 where the machine has no such path, or 2 where codes are larger than 'code_max'. */
int nd_run(nd_network *network, int path);

#endif
