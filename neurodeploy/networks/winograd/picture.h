/* The convolution of one picture and the gradient of its kernel, for vectors of ND_LANES channels.
 *
 * winograd.c includes this once for each width that there are instructions for: ND_WAY is what its names end in, ND_TALL
 * the rows of two vectors whose sums the registers hold beside what they are made of, ND_TARGET the instructions.
 */
#define ND_NAMED_(NAME, WAY) NAME##_##WAY
#define ND_NAMED(NAME, WAY) ND_NAMED_(NAME, WAY)
#define lanes ND_NAMED(lanes, ND_WAY)
#define to_products ND_NAMED(to_products, ND_WAY)
#define from_products ND_NAMED(from_products, ND_WAY)
#define from_products_adjoint ND_NAMED(from_products_adjoint, ND_WAY)
#define tile_to_products ND_NAMED(tile_to_products, ND_WAY)
#define tile_from_products ND_NAMED(tile_from_products, ND_WAY)
#define tile_from_products_adjoint ND_NAMED(tile_from_products_adjoint, ND_WAY)
#define block_to_products ND_NAMED(block_to_products, ND_WAY)
#define block_from_products ND_NAMED(block_from_products, ND_WAY)
#define block_from_products_adjoint ND_NAMED(block_from_products_adjoint, ND_WAY)
#define corner ND_NAMED(corner, ND_WAY)
#define multiply ND_NAMED(multiply, ND_WAY)
#define picture_convolved ND_NAMED(picture_convolved, ND_WAY)
#define picture_correlated ND_NAMED(picture_correlated, ND_WAY)

/* ND_LANES channels, at any address that a float may have */
typedef float lanes __attribute__((vector_size(4 * ND_LANES), aligned(4), may_alias));

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

#define ND_ROWS(TALL)                                                                                                  \
    for (; r + TALL <= rows; r += TALL) {                                                                              \
        if (pair) corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, TALL, 2);         \
        else corner(a + r * a_row, a_row, a_step, b + k, to + r * width + k, depth, width, add, TALL, 1);              \
    }

ND_INLINE void multiply(const float *a, int64_t a_row, int64_t a_step, const float *b, float *to, int64_t rows, int64_t depth,
                        int64_t width, int add) {
    for (int64_t k = 0; k < width; k += 2 * ND_LANES) {
        const int pair = k + ND_LANES < width;
        int64_t r = 0;
        ND_ROWS(ND_TALL)
        ND_ROWS(4)
        ND_ROWS(1)
    }
}

/* ---- one picture ---- */

ND_TARGET static void picture_convolved(const float *x, const float *kernel, const float *bias, float *y, float *room, const shape *of) {
    float *before = room, *after = room + ND_PRODUCTS * plane_of(of->inputs);
    for (int64_t first = 0; first < of->tiles; first += ND_BLOCK) {
        const int64_t count = of->tiles - first < ND_BLOCK ? of->tiles - first : ND_BLOCK;
        block_to_products(x, before, of, first, count);
        for (int i = 0; i < ND_PRODUCTS; i++)
            multiply(before + i * plane_of(of->inputs), of->inputs, 1, kernel + i * of->inputs * of->outputs,
                     after + i * plane_of(of->outputs), count, of->inputs, of->outputs, 0);
        block_from_products(y, bias, after, of, first, count);
    }
}

/* Adds the gradient of the transformed kernel. */
ND_TARGET static void picture_correlated(const float *x, const float *grad, float *kernel, float *room, const shape *of) {
    float *before = room, *after = room + ND_PRODUCTS * plane_of(of->inputs);
    for (int64_t first = 0; first < of->tiles; first += ND_BLOCK) {
        const int64_t count = of->tiles - first < ND_BLOCK ? of->tiles - first : ND_BLOCK;
        block_to_products(x, before, of, first, count);
        block_from_products_adjoint(grad, after, of, first, count);
        for (int i = 0; i < ND_PRODUCTS; i++)
            multiply(before + i * plane_of(of->inputs), 1, of->inputs, after + i * plane_of(of->outputs),
                     kernel + i * of->inputs * of->outputs, of->inputs, count, of->outputs, 1);
    }
}

#undef lanes
#undef to_products
#undef from_products
#undef from_products_adjoint
#undef tile_to_products
#undef tile_from_products
#undef tile_from_products_adjoint
#undef block_to_products
#undef block_from_products
#undef block_from_products_adjoint
#undef corner
#undef multiply
#undef picture_convolved
#undef picture_correlated
#undef ND_NAMED
#undef ND_NAMED_
#undef ND_BOTH_WAYS
#undef ND_EACH_TILE
#undef ND_UNROLL
#undef ND_ROWS
#undef ND_WAY
#undef ND_LANES
#undef ND_TALL
#undef ND_TARGET
