/* Winograd's 3 x 3 convolution F(4 x 4, 3 x 3) (Lavin and Gray, arXiv 1509.09308): the convolution, and the gradient of
 * its kernel. That of its input is the same convolution with the kernel turned round.
 *
 * Pictures are float32 (pictures, height, width, channels), channels innermost and a multiple of ND_CHANNELS; a tile of
 * 4 x 4 outputs is made of 6 x 6 inputs, zeros beyond the borders. A picture is worked off in blocks of tiles that stay
 * in the cache from the transform of the inputs to that of the outputs. In between a block is a row of 36 matrices
 * (tiles, channels), each multiplied with a matrix of the transformed kernel.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#define ND_INLINE static inline __attribute__((always_inline))

enum { ND_PLAIN = 0, ND_AVX2 = 1, ND_AVX512 = 2 };
enum { ND_ABI = 3, ND_CHANNELS = 16, ND_TILE = 4, ND_PATCH = 6, ND_PRODUCTS = ND_PATCH * ND_PATCH, ND_BLOCK = 24 };

/* What a call is about. 'room' is the scratch memory of a thread, see nd_winograd_room. */
typedef struct {
    int64_t height, width, inputs, outputs, columns, tiles;
} shape;

ND_INLINE int64_t plane_of(int64_t channels) {
    return ND_BLOCK * channels + ND_CHANNELS; /* not a multiple of a page: 36 lines of one place must not share a set */
}

ND_INLINE int is_inside(const shape *of, int64_t row, int64_t column) {
    return row >= 0 && row < of->height && column >= 0 && column < of->width;
}

/* The widths of the instructions that there may be; their registers hold the sums of ND_TALL rows of two vectors. */
#define ND_WAY plain
#define ND_LANES 4
#define ND_TALL 6
#define ND_TARGET
#include "picture.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ND_WAY avx2
#define ND_LANES 8
#define ND_TALL 6
#define ND_TARGET __attribute__((target("avx2,fma")))
#include "picture.h"

#define ND_WAY avx512
#define ND_LANES 16
#define ND_TALL 8
#define ND_TARGET __attribute__((target("avx512f,avx512vl,fma")))
#include "picture.h"
#endif

/* ---- what Python calls ---- */

int nd_winograd_abi(void) { return ND_ABI; }

/* Floats of scratch memory that each thread needs. */
int64_t nd_winograd_room(int64_t inputs, int64_t outputs) { return ND_PRODUCTS * (plane_of(inputs) + plane_of(outputs)); }

#ifdef _OPENMP
#define ND_PARALLEL _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")
#define ND_THREAD omp_get_thread_num()
#else
#define ND_PARALLEL
#define ND_THREAD 0
#endif

ND_INLINE shape shape_of(int64_t height, int64_t width, int64_t inputs, int64_t outputs) {
    const int64_t rows = (height + ND_TILE - 1) / ND_TILE, columns = (width + ND_TILE - 1) / ND_TILE;
    return (shape){height, width, inputs, outputs, columns, rows * columns};
}

/* The widest instructions that there are and that the caller allows. */
ND_INLINE int path_of(int widest) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (widest >= ND_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return ND_AVX512;
    if (widest >= ND_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return ND_AVX2;
#endif
    (void)widest;
    return ND_PLAIN;
}

#if defined(__x86_64__) && defined(__GNUC__)
#define ND_CALL(NAME, ...)                                                                                             \
    if (path == ND_AVX512) NAME##_avx512(__VA_ARGS__);                                                                 \
    else if (path == ND_AVX2) NAME##_avx2(__VA_ARGS__);                                                                \
    else NAME##_plain(__VA_ARGS__);
#else
#define ND_CALL(NAME, ...) NAME##_plain(__VA_ARGS__);
#endif

#define ND_EACH_PICTURE                                                                                                \
    const shape of = shape_of(height, width, inputs, outputs);                                                         \
    const int64_t own = nd_winograd_room(inputs, outputs);                                                             \
    const int path = path_of(widest);                                                                                  \
    (void)threads, (void)path;                                                                                         \
    ND_PARALLEL                                                                                                        \
    for (int64_t picture = 0; picture < count; picture++)

/* y (count, height, width, outputs) of x and of the transformed kernel (36, inputs, outputs). */
void nd_winograd_convolve(const float *x, const float *kernel, const float *bias, float *y, float *room, int64_t count,
                          int64_t height, int64_t width, int64_t inputs, int64_t outputs, int threads, int widest) {
    ND_EACH_PICTURE {
        const float *from = x + picture * height * width * inputs;
        float *to = y + picture * height * width * outputs, *scratch = room + ND_THREAD * own;
        ND_CALL(picture_convolved, from, kernel, bias, to, scratch, &of)
    }
}

/* Adds to the kernel's gradients (threads, 36, inputs, outputs), one for each thread. */
void nd_winograd_correlate(const float *x, const float *grad, float *kernels, float *room, int64_t count, int64_t height,
                           int64_t width, int64_t inputs, int64_t outputs, int threads, int widest) {
    ND_EACH_PICTURE {
        const float *from = x + picture * height * width * inputs, *back = grad + picture * height * width * outputs;
        float *kernel = kernels + ND_THREAD * ND_PRODUCTS * inputs * outputs, *scratch = room + ND_THREAD * own;
        ND_CALL(picture_correlated, from, back, kernel, scratch, &of)
    }
}
