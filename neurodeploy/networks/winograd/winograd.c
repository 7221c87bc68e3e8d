/* Winograd's 3 x 3 convolution F(4 x 4, 3 x 3) (Lavin and Gray, arXiv 1509.09308): the convolution, and the gradient of
 * its kernel. That of its input is the same convolution with the kernel turned round.
 *
 * Pictures are float32 (pictures, height, width, channels), channels innermost and a multiple of ND_LANES; a tile of
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
enum { ND_ABI = 3, ND_LANES = 16, ND_TILE = 4, ND_PATCH = 6, ND_PRODUCTS = ND_PATCH * ND_PATCH, ND_BLOCK = 24 };

/* 16 channels, at any address that a float may have */
typedef float lanes __attribute__((vector_size(4 * ND_LANES), aligned(4), may_alias));

/* What a call is about. 'room' is the scratch memory of a thread, see nd_winograd_room. */
typedef struct {
    int64_t height, width, inputs, outputs, columns, tiles;
} shape;

/* ---- the transforms: one dimension ---- */

/* B^T d */
ND_INLINE void to_products(const lanes d[ND_PATCH], lanes v[ND_PATCH]) {
    const lanes a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1], c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    v[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

/* A^T m */
ND_INLINE void from_products(const lanes m[ND_PATCH], lanes y[ND_TILE]) {
    const lanes sum = m[1] + m[2], less = m[1] - m[2], sum2 = m[3] + m[4], less2 = m[3] - m[4];
    y[0] = m[0] + sum + sum2;
    y[1] = less + 2.0f * less2;
    y[2] = sum + 4.0f * sum2;
    y[3] = less + 8.0f * less2 + m[5];
}

/* A y */
ND_INLINE void from_products_adjoint(const lanes y[ND_TILE], lanes m[ND_PATCH]) {
    const lanes even = y[0] + y[2], odd = y[1] + y[3], even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even2 + odd2;
    m[4] = even2 - odd2;
    m[5] = y[3];
}

/* ---- two dimensions: along the rows of from[SIDE][SIDE], then along the columns of what that gave ---- */

#define ND_BOTH_WAYS(NAME, STEP, SIDE, MADE)                                                                           \
    ND_INLINE void NAME(lanes from[SIDE][SIDE], lanes to[MADE][MADE]) {                                                \
        lanes half[SIDE][MADE];                                                                                        \
        for (int row = 0; row < SIDE; row++) STEP(from[row], half[row]);                                               \
        for (int column = 0; column < MADE; column++) {                                                                \
            lanes in[SIDE], out[MADE];                                                                                 \
            for (int row = 0; row < SIDE; row++) in[row] = half[row][column];                                          \
            STEP(in, out);                                                                                             \
            for (int row = 0; row < MADE; row++) to[row][column] = out[row];                                           \
        }                                                                                                              \
    }

ND_BOTH_WAYS(tile_to_products, to_products, ND_PATCH, ND_PATCH)
ND_BOTH_WAYS(tile_from_products, from_products, ND_PATCH, ND_TILE)
ND_BOTH_WAYS(tile_from_products_adjoint, from_products_adjoint, ND_TILE, ND_PATCH)

/* ---- a block: 'count' tiles from 'first' on, matrices (tiles, channels) 'plane' floats apart ---- */

ND_INLINE int64_t plane_of(int64_t channels) {
    return ND_BLOCK * channels + ND_LANES; /* not a multiple of a page: 36 lines of one place must not share a set */
}

ND_INLINE int is_inside(const shape *of, int64_t row, int64_t column) {
    return row >= 0 && row < of->height && column >= 0 && column < of->width;
}

#define ND_EACH_TILE(CHANNELS)                                                                                         \
    for (int64_t tile = 0; tile < count; tile++)                                                                       \
        for (int64_t row = ND_TILE * ((first + tile) / of->columns), column = ND_TILE * ((first + tile) % of->columns),\
                     channel = 0; channel < (CHANNELS); channel += ND_LANES)

ND_INLINE void block_to_products(const float *x, float *products, const shape *of, int64_t first, int64_t count) {
    const int64_t plane = plane_of(of->inputs);
    ND_EACH_TILE(of->inputs) {
        lanes d[ND_PATCH][ND_PATCH], v[ND_PATCH][ND_PATCH];
        for (int i = 0; i < ND_PATCH; i++)
            for (int j = 0; j < ND_PATCH; j++) {
                const int64_t y = row + i - 1, z = column + j - 1;
                d[i][j] = is_inside(of, y, z) ? *(const lanes *)(x + (y * of->width + z) * of->inputs + channel) : (lanes){0};
            }
        tile_to_products(d, v);
        float *to = products + tile * of->inputs + channel;
        for (int i = 0; i < ND_PRODUCTS; i++) *(lanes *)(to + i * plane) = v[i / ND_PATCH][i % ND_PATCH];
    }
}

ND_INLINE void block_from_products(float *y, const float *bias, const float *products, const shape *of, int64_t first,
                                   int64_t count) {
    const int64_t plane = plane_of(of->outputs);
    ND_EACH_TILE(of->outputs) {
        lanes m[ND_PATCH][ND_PATCH], out[ND_TILE][ND_TILE];
        const float *from = products + tile * of->outputs + channel;
        for (int i = 0; i < ND_PRODUCTS; i++) m[i / ND_PATCH][i % ND_PATCH] = *(const lanes *)(from + i * plane);
        tile_from_products(m, out);
        const lanes shift = *(const lanes *)(bias + channel);
        for (int i = 0; i < ND_TILE; i++)
            for (int j = 0; j < ND_TILE; j++)
                if (is_inside(of, row + i, column + j))
                    *(lanes *)(y + ((row + i) * of->width + column + j) * of->outputs + channel) = out[i][j] + shift;
    }
}

ND_INLINE void block_from_products_adjoint(const float *grad, float *products, const shape *of, int64_t first,
                                           int64_t count) {
    const int64_t plane = plane_of(of->outputs);
    ND_EACH_TILE(of->outputs) {
        lanes m[ND_PATCH][ND_PATCH], out[ND_TILE][ND_TILE];
        for (int i = 0; i < ND_TILE; i++)
            for (int j = 0; j < ND_TILE; j++) {
                const int64_t y = row + i, z = column + j;
                out[i][j] = is_inside(of, y, z) ? *(const lanes *)(grad + (y * of->width + z) * of->outputs + channel) : (lanes){0};
            }
        tile_from_products_adjoint(out, m);
        float *to = products + tile * of->outputs + channel;
        for (int i = 0; i < ND_PRODUCTS; i++) *(lanes *)(to + i * plane) = m[i / ND_PATCH][i % ND_PATCH];
    }
}

/* ---- matrix products: to[r][k] (+)= sum over i of a[r a_row + i a_step] b[i][k], b and to with 'width' columns ---- */

#define ND_UNROLL _Pragma("GCC unroll 16")

ND_INLINE void corner(const float *a, int64_t a_row, int64_t a_step, const float *b, float *to, int64_t depth, int64_t width,
                      int add, const int rows, const int wide) {
    lanes sum[8][2];
    ND_UNROLL
    for (int r = 0; r < rows; r++) {
        ND_UNROLL
        for (int k = 0; k < wide; k++) sum[r][k] = add ? *(const lanes *)(to + r * width + k * ND_LANES) : (lanes){0};
    }
    for (int64_t i = 0; i < depth; i++) {
        lanes line[2];
        ND_UNROLL
        for (int k = 0; k < wide; k++) line[k] = *(const lanes *)(b + i * width + k * ND_LANES);
        ND_UNROLL
        for (int r = 0; r < rows; r++) {
            const float one = a[r * a_row + i * a_step];
            ND_UNROLL
            for (int k = 0; k < wide; k++) sum[r][k] += one * line[k];
        }
    }
    ND_UNROLL
    for (int r = 0; r < rows; r++) {
        ND_UNROLL
        for (int k = 0; k < wide; k++) *(lanes *)(to + r * width + k * ND_LANES) = sum[r][k];
    }
}

ND_INLINE void multiply(const float *a, int64_t a_row, int64_t a_step, const float *b, float *to, int64_t rows, int64_t depth,
                        int64_t width, int add, const int tall) {
    for (int64_t k = 0; k < width; k += 2 * ND_LANES) {
        const int pair = k + ND_LANES < width;
        int64_t r = 0;
        for (; r + tall <= rows; r += tall) {
            if (pair) corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, tall, 2);
            else corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, tall, 1);
        }
        for (; r < rows; r++) {
            if (pair) corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, 1, 2);
            else corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, 1, 1);
        }
    }
}

/* ---- one picture ---- */

ND_INLINE void picture_convolved(const float *x, const float *kernel, const float *bias, float *y, float *room, const shape *of,
                                 const int tall) {
    float *before = room, *after = room + ND_PRODUCTS * plane_of(of->inputs);
    for (int64_t first = 0; first < of->tiles; first += ND_BLOCK) {
        const int64_t count = of->tiles - first < ND_BLOCK ? of->tiles - first : ND_BLOCK;
        block_to_products(x, before, of, first, count);
        for (int i = 0; i < ND_PRODUCTS; i++)
            multiply(before + i * plane_of(of->inputs), of->inputs, 1, kernel + i * of->inputs * of->outputs,
                     after + i * plane_of(of->outputs), count, of->inputs, of->outputs, 0, tall);
        block_from_products(y, bias, after, of, first, count);
    }
}

/* Adds the gradient of the transformed kernel. */
ND_INLINE void picture_correlated(const float *x, const float *grad, float *kernel, float *room, const shape *of, const int tall) {
    float *before = room, *after = room + ND_PRODUCTS * plane_of(of->inputs);
    for (int64_t first = 0; first < of->tiles; first += ND_BLOCK) {
        const int64_t count = of->tiles - first < ND_BLOCK ? of->tiles - first : ND_BLOCK;
        block_to_products(x, before, of, first, count);
        block_from_products_adjoint(grad, after, of, first, count);
        for (int i = 0; i < ND_PRODUCTS; i++)
            multiply(before + i * plane_of(of->inputs), 1, of->inputs, after + i * plane_of(of->outputs),
                     kernel + i * of->inputs * of->outputs, of->inputs, count, of->outputs, 1, tall);
    }
}

/* The same for the instructions that there may be; 'tall' rows of two vectors are what their registers hold. */
#define ND_PATH(NAME, ATTRIBUTE, TALL)                                                                                 \
    ATTRIBUTE static void convolved_##NAME(const float *x, const float *kernel, const float *bias, float *y, float *room, \
                                           const shape *of) {                                                          \
        picture_convolved(x, kernel, bias, y, room, of, TALL);                                                         \
    }                                                                                                                  \
    ATTRIBUTE static void correlated_##NAME(const float *x, const float *grad, float *kernel, float *room, const shape *of) { \
        picture_correlated(x, grad, kernel, room, of, TALL);                                                           \
    }

ND_PATH(plain, , 2)
#if defined(__x86_64__) && defined(__GNUC__)
ND_PATH(avx2, __attribute__((target("avx2,fma"))), 2)
ND_PATH(avx512, __attribute__((target("avx512f,avx512vl,fma"))), 8)
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
        ND_CALL(convolved, from, kernel, bias, to, scratch, &of)
    }
}

/* Adds to the kernel's gradients (threads, 36, inputs, outputs), one for each thread. */
void nd_winograd_correlate(const float *x, const float *grad, float *kernels, float *room, int64_t count, int64_t height,
                           int64_t width, int64_t inputs, int64_t outputs, int threads, int widest) {
    ND_EACH_PICTURE {
        const float *from = x + picture * height * width * inputs, *back = grad + picture * height * width * outputs;
        float *kernel = kernels + ND_THREAD * ND_PRODUCTS * inputs * outputs, *scratch = room + ND_THREAD * own;
        ND_CALL(correlated, from, back, kernel, scratch, &of)
    }
}
