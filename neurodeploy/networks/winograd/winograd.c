/* The transforms of Winograd's 3 x 3 convolution F(4 x 4, 3 x 3) (Lavin and Gray, arXiv 1509.09308) and their adjoints.
 *
 * Pictures are float32 (pictures, height, width, channels), channels innermost and a multiple of ND_LANES; a tile of
 * 4 x 4 outputs is made of 6 x 6 inputs, zeros beyond the borders. In the domain of the products a tile is a row of 36
 * matrices (tiles, channels), 'plane' floats apart; tiles are in the order of pictures, rows, columns.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define ND_PATHS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ND_PATHS
#endif
#define ND_INLINE static inline __attribute__((always_inline))

enum { ND_ABI = 1, ND_LANES = 16, ND_TILE = 4, ND_PATCH = 6, ND_PRODUCTS = ND_PATCH * ND_PATCH };

/* 16 channels, at any address that a float may have */
typedef float lanes __attribute__((vector_size(4 * ND_LANES), aligned(4), may_alias));

/* What the functions are called with: pictures of one batch. */
typedef struct {
    int64_t height, width, channels, rows, columns, plane;
} shape;

/* ---- one dimension ---- */

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

/* B v */
ND_INLINE void to_products_adjoint(const lanes v[ND_PATCH], lanes d[ND_PATCH]) {
    const lanes sum = v[1] + v[2], less = v[1] - v[2], sum2 = v[3] + v[4], less2 = 2.0f * (v[3] - v[4]);
    d[0] = 4.0f * v[0];
    d[1] = 4.0f * (v[5] - less) - less2;
    d[2] = -5.0f * v[0] - 4.0f * sum - sum2;
    d[3] = less + less2 - 5.0f * v[5];
    d[4] = v[0] + sum + sum2;
    d[5] = v[5];
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

/* ---- two dimensions: along the columns of from[SIDE][SIDE], then along the rows of what that gave ---- */

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
ND_BOTH_WAYS(tile_to_products_adjoint, to_products_adjoint, ND_PATCH, ND_PATCH)
ND_BOTH_WAYS(tile_from_products, from_products, ND_PATCH, ND_TILE)
ND_BOTH_WAYS(tile_from_products_adjoint, from_products_adjoint, ND_TILE, ND_PATCH)

/* ---- one picture ---- */

ND_INLINE lanes *place(float *picture, const shape *of, int64_t row, int64_t column, int64_t channel) {
    const int outside = row < 0 || row >= of->height || column < 0 || column >= of->width;
    return outside ? NULL : (lanes *)(picture + (row * of->width + column) * of->channels + channel);
}

#define ND_EACH_TILE(PRODUCTS)                                                                                         \
    for (int64_t row = 0; row < of->rows; row++)                                                                       \
        for (int64_t column = 0; column < of->columns; column++)                                                       \
            for (int64_t channel = 0; channel < of->channels; channel += ND_LANES)                                     \
                for (float *tile = (PRODUCTS) + (row * of->columns + column) * of->channels + channel; tile; tile = NULL)

ND_PATHS static void picture_to_products(float *x, float *products, const shape *of) {
    ND_EACH_TILE(products) {
        lanes d[ND_PATCH][ND_PATCH], v[ND_PATCH][ND_PATCH];
        for (int i = 0; i < ND_PATCH; i++)
            for (int j = 0; j < ND_PATCH; j++) {
                const lanes *at = place(x, of, ND_TILE * row + i - 1, ND_TILE * column + j - 1, channel);
                d[i][j] = at ? *at : (lanes){0};
            }
        tile_to_products(d, v);
        for (int i = 0; i < ND_PRODUCTS; i++) *(lanes *)(tile + i * of->plane) = v[i / ND_PATCH][i % ND_PATCH];
    }
}

ND_PATHS static void picture_to_products_adjoint(float *x, float *products, const shape *of) {
    ND_EACH_TILE(products) {
        lanes d[ND_PATCH][ND_PATCH], v[ND_PATCH][ND_PATCH];
        for (int i = 0; i < ND_PRODUCTS; i++) v[i / ND_PATCH][i % ND_PATCH] = *(lanes *)(tile + i * of->plane);
        tile_to_products_adjoint(v, d);
        for (int i = 0; i < ND_PATCH; i++)
            for (int j = 0; j < ND_PATCH; j++) {
                lanes *at = place(x, of, ND_TILE * row + i - 1, ND_TILE * column + j - 1, channel);
                if (at) *at += d[i][j];
            }
    }
}

ND_PATHS static void picture_from_products(float *y, const float *bias, float *products, const shape *of) {
    ND_EACH_TILE(products) {
        lanes m[ND_PATCH][ND_PATCH], out[ND_TILE][ND_TILE];
        for (int i = 0; i < ND_PRODUCTS; i++) m[i / ND_PATCH][i % ND_PATCH] = *(lanes *)(tile + i * of->plane);
        tile_from_products(m, out);
        const lanes shift = *(const lanes *)(bias + channel);
        for (int i = 0; i < ND_TILE; i++)
            for (int j = 0; j < ND_TILE; j++) {
                lanes *at = place(y, of, ND_TILE * row + i, ND_TILE * column + j, channel);
                if (at) *at = out[i][j] + shift;
            }
    }
}

ND_PATHS static void picture_from_products_adjoint(float *y, float *products, const shape *of) {
    ND_EACH_TILE(products) {
        lanes m[ND_PATCH][ND_PATCH], out[ND_TILE][ND_TILE];
        for (int i = 0; i < ND_TILE; i++)
            for (int j = 0; j < ND_TILE; j++) {
                const lanes *at = place(y, of, ND_TILE * row + i, ND_TILE * column + j, channel);
                out[i][j] = at ? *at : (lanes){0};
            }
        tile_from_products_adjoint(out, m);
        for (int i = 0; i < ND_PRODUCTS; i++) *(lanes *)(tile + i * of->plane) = m[i / ND_PATCH][i % ND_PATCH];
    }
}

/* ---- what Python calls: all pictures, spread over threads ---- */

int nd_winograd_abi(void) { return ND_ABI; }

#ifdef _OPENMP
#define ND_PARALLEL _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")
#else
#define ND_PARALLEL
#endif

#define ND_EACH_PICTURE(CALL)                                                                                          \
    const shape of = {height, width, channels, (height + ND_TILE - 1) / ND_TILE, (width + ND_TILE - 1) / ND_TILE, plane}; \
    (void)threads;                                                                                                     \
    ND_PARALLEL                                                                                                        \
    for (int64_t picture = 0; picture < count; picture++) {                                                            \
        float *one = values + picture * height * width * channels;                                                     \
        float *tiles = products + picture * of.rows * of.columns * channels;                                           \
        CALL;                                                                                                          \
    }

void nd_to_products(float *values, float *products, int64_t count, int64_t height, int64_t width, int64_t channels, int64_t plane,
                    int threads) {
    ND_EACH_PICTURE(picture_to_products(one, tiles, &of))
}

/* Adds to 'values'. */
void nd_to_products_adjoint(float *values, float *products, int64_t count, int64_t height, int64_t width, int64_t channels,
                            int64_t plane, int threads) {
    ND_EACH_PICTURE(picture_to_products_adjoint(one, tiles, &of))
}

void nd_from_products(float *values, const float *bias, float *products, int64_t count, int64_t height, int64_t width,
                      int64_t channels, int64_t plane, int threads) {
    ND_EACH_PICTURE(picture_from_products(one, bias, tiles, &of))
}

void nd_from_products_adjoint(float *values, float *products, int64_t count, int64_t height, int64_t width, int64_t channels,
                              int64_t plane, int threads) {
    ND_EACH_PICTURE(picture_from_products_adjoint(one, tiles, &of))
}
