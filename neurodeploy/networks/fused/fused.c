/* The spiking activations of training, each one pass over memory: forward and backward of the LIF scan and of levels.
 *
 * Tensors are float32 or bfloat16 in any layout in which a time step is one dense run of 'size' values. Sums are made
 * in float32 and kept a block at a time, so that they do not depend on the number of threads.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define ND_PATHS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ND_PATHS
#endif
#define ND_INLINE static inline __attribute__((always_inline))

enum { ND_BLOCK = 2048, ND_ABI = 2 };
enum { ND_FLOAT32 = 0, ND_BFLOAT16 = 1 };
enum { ND_TRIANGLE = 0, ND_ATAN = 1, ND_SIGMOID = 2, ND_SUPERSPIKE = 3 };

/* ---- values as they lie in memory ---- */

ND_INLINE float widened(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Round to nearest, ties to even; a NaN stays one. */
ND_INLINE uint16_t narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(value == value ? rounded : 0x7fc0u);
}

ND_INLINE void read_block(const void *from, int64_t at, int count, int kind, float *to) {
    if (kind == ND_BFLOAT16) {
        const uint16_t *values = (const uint16_t *)from + at;
        for (int i = 0; i < count; i++) to[i] = widened(values[i]);
    } else {
        memcpy(to, (const float *)from + at, (size_t)count * sizeof(float));
    }
}

ND_INLINE void write_block(const float *from, void *to, int64_t at, int count, int kind) {
    if (kind == ND_BFLOAT16) {
        uint16_t *values = (uint16_t *)to + at;
        for (int i = 0; i < count; i++) values[i] = narrowed(from[i]);
    } else {
        memcpy((float *)to + at, from, (size_t)count * sizeof(float));
    }
}

/* What a value of a narrow type becomes when it is written: a later step reads the membrane that was saved. */
ND_INLINE float stored(float value, int kind) { return kind == ND_BFLOAT16 ? widened(narrowed(value)) : value; }

/* ---- surrogate gradients: the slope of the spike at x = (u - theta) / theta ---- */

/* exp(x) for x <= 0, relative error below 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. */
ND_INLINE float exp_below(float x) {
    const float held = x > -87.0f ? x : -87.0f;
    const float n = floorf(held * 1.44269504f + 0.5f);
    const float r = (held - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

ND_INLINE float slope(float x, int surrogate) {
    const float size = fabsf(x);
    if (surrogate == ND_TRIANGLE) return size < 1.0f ? 1.0f - size : 0.0f;
    if (surrogate == ND_ATAN) return 1.0f / (1.0f + 9.8696044f * x * x);
    if (surrogate == ND_SUPERSPIKE) {
        const float root = 1.0f + 2.5f * size;
        return 1.0f / (root * root);
    }
    /* 4 s (1 - s), s = sigmoid(4 x); even in x */
    const float e = exp_below(-4.0f * size);
    return 4.0f * e / ((1.0f + e) * (1.0f + e));
}

/* ---- the LIF scan ----
 * u_t = keep v_(t-1) + x_t;  s_t = [u_t > theta];  v_t = u_t (1 - s_t). x_stride is 0 where every step has one current.
 */

ND_INLINE float lif_forward(const void *x, int64_t x_stride, void *u, void *s, int64_t size, int steps, int64_t at,
                            int count, float theta, float keep, int kind) {
    float v[ND_BLOCK], current[ND_BLOCK], spikes[ND_BLOCK];
    float total = 0.0f;
    memset(v, 0, sizeof v);
    for (int t = 0; t < steps; t++) {
        if (t == 0 || x_stride) read_block(x, t * x_stride + at, count, kind, current);
        float fired = 0.0f;
#pragma omp simd reduction(+ : fired)
        for (int i = 0; i < count; i++) {
            const float now = stored(keep * v[i] + current[i], kind);
            const float spike = now > theta ? 1.0f : 0.0f;
            v[i] = now;
            spikes[i] = spike;
            fired += spike;
        }
        write_block(v, u, t * size + at, count, kind);
        write_block(spikes, s, t * size + at, count, kind);
        for (int i = 0; i < count; i++) v[i] = v[i] * (1.0f - spikes[i]);
        total += fired;
    }
    return total;
}

/* g_t is the gradient of the spikes (g_stride 0: the same every step) plus 'every', that of their sum. grad_x may be u
 * itself. Returns the gradient of theta. */
ND_INLINE float lif_backward(const void *g, int64_t g_stride, const void *u, void *grad_x, int64_t x_stride, int64_t size, int steps,
                             int64_t at, int count, float theta, float keep, float every, int kind, int surrogate) {
    float gv[ND_BLOCK], sum[ND_BLOCK], grad[ND_BLOCK], membrane[ND_BLOCK];
    const float inverse = 1.0f / theta;
    float total = 0.0f;
    memset(gv, 0, sizeof gv);
    memset(sum, 0, sizeof sum);
    for (int t = steps - 1; t >= 0; t--) {
        read_block(g, t * g_stride + at, count, kind, grad);
        read_block(u, t * size + at, count, kind, membrane);
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int i = 0; i < count; i++) {
            const float relative = membrane[i] * inverse;
            const float at_spike = (grad[i] + every - membrane[i] * gv[i]) * slope(relative - 1.0f, surrogate) * inverse;
            const float q = (membrane[i] > theta ? 0.0f : gv[i]) + at_spike;
            part -= at_spike * relative;
            gv[i] = keep * q;
            sum[i] += q;
            grad[i] = q;
        }
        if (x_stride) write_block(grad, grad_x, t * size + at, count, kind);
        total += part;
    }
    if (!x_stride) write_block(sum, grad_x, at, count, kind);
    return total;
}

/* ---- integer levels: count = clip(ceil((x - before) inverse - after), 0, levels) ---- */

ND_INLINE float levels_forward(const void *x, void *counts, int64_t at, int count, float before, float inverse,
                               float after, float levels, int kind) {
    float values[ND_BLOCK];
    float total = 0.0f;
    read_block(x, at, count, kind, values);
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < count; i++) {
        const float level = ceilf((values[i] - before) * inverse - after);
        const float held = level > 0.0f ? (level < levels ? level : levels) : 0.0f;
        values[i] = held;
        total += held;
    }
    write_block(values, counts, at, count, kind);
    return total;
}

/* grad_x = (g + every) inverse inside the window low < x inverse < high, else 0; returns the sum of -grad_x x. */
ND_INLINE float levels_backward(const void *g, const void *x, void *grad_x, int64_t at, int count, float inverse,
                                float low, float high, float every, int kind) {
    float grad[ND_BLOCK], values[ND_BLOCK];
    float total = 0.0f;
    read_block(g, at, count, kind, grad);
    read_block(x, at, count, kind, values);
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < count; i++) {
        const float scaled = values[i] * inverse;
        const float through = ((scaled > low) & (scaled < high)) ? (grad[i] + every) * inverse : 0.0f;
        total -= through * values[i];
        grad[i] = through;
    }
    write_block(grad, grad_x, at, count, kind);
    return total;
}

/* ---- one block on the fastest path that the machine has; kinds and surrogates become constants here ---- */

ND_PATHS static float lif_forward_block(const void *x, int64_t x_stride, void *u, void *s, int64_t size, int steps,
                                        int64_t at, int count, float theta, float keep, int kind) {
    if (kind == ND_BFLOAT16) return lif_forward(x, x_stride, u, s, size, steps, at, count, theta, keep, ND_BFLOAT16);
    return lif_forward(x, x_stride, u, s, size, steps, at, count, theta, keep, ND_FLOAT32);
}

#define ND_LIF_BACKWARD(KIND, SURROGATE)                                                                               \
    if (kind == KIND && surrogate == SURROGATE)                                                                        \
        return lif_backward(g, g_stride, u, grad_x, x_stride, size, steps, at, count, theta, keep, every, KIND, SURROGATE);

ND_PATHS static float lif_backward_block(const void *g, int64_t g_stride, const void *u, void *grad_x,
                                         int64_t x_stride, int64_t size, int steps, int64_t at, int count, float theta, float keep, float every,
                                         int kind, int surrogate) {
    ND_LIF_BACKWARD(ND_FLOAT32, ND_TRIANGLE)
    ND_LIF_BACKWARD(ND_FLOAT32, ND_ATAN)
    ND_LIF_BACKWARD(ND_FLOAT32, ND_SIGMOID)
    ND_LIF_BACKWARD(ND_FLOAT32, ND_SUPERSPIKE)
    ND_LIF_BACKWARD(ND_BFLOAT16, ND_TRIANGLE)
    ND_LIF_BACKWARD(ND_BFLOAT16, ND_ATAN)
    ND_LIF_BACKWARD(ND_BFLOAT16, ND_SIGMOID)
    ND_LIF_BACKWARD(ND_BFLOAT16, ND_SUPERSPIKE)
    return NAN;
}

ND_PATHS static float levels_forward_block(const void *x, void *counts, int64_t at, int count, float before,
                                           float inverse, float after, float levels, int kind) {
    if (kind == ND_BFLOAT16) return levels_forward(x, counts, at, count, before, inverse, after, levels, ND_BFLOAT16);
    return levels_forward(x, counts, at, count, before, inverse, after, levels, ND_FLOAT32);
}

ND_PATHS static float levels_backward_block(const void *g, const void *x, void *grad_x, int64_t at, int count,
                                            float inverse, float low, float high, float every, int kind) {
    if (kind == ND_BFLOAT16) return levels_backward(g, x, grad_x, at, count, inverse, low, high, every, ND_BFLOAT16);
    return levels_backward(g, x, grad_x, at, count, inverse, low, high, every, ND_FLOAT32);
}

/* ---- what Python calls: all blocks, spread over threads; parts holds a sum a block ---- */

int nd_fused_abi(void) { return ND_ABI; }

int nd_fused_block(void) { return ND_BLOCK; }

#ifdef _OPENMP
#define ND_PARALLEL _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")
#else
#define ND_PARALLEL
#endif

#define ND_EACH_BLOCK(CALL)                                                                                            \
    const int64_t blocks = (size + ND_BLOCK - 1) / ND_BLOCK;                                                           \
    (void)threads;                                                                                                     \
    ND_PARALLEL                                                                                                        \
    for (int64_t block = 0; block < blocks; block++) {                                                                 \
        const int64_t at = block * ND_BLOCK;                                                                           \
        const int count = (int)(size - at < ND_BLOCK ? size - at : ND_BLOCK);                                          \
        parts[block] = CALL;                                                                                           \
    }

void nd_lif_forward(const void *x, int64_t x_stride, void *u, void *s, float *parts, int64_t size, int steps,
                    float theta, float keep, int kind, int threads) {
    ND_EACH_BLOCK(lif_forward_block(x, x_stride, u, s, size, steps, at, count, theta, keep, kind))
}

void nd_lif_backward(const void *g, int64_t g_stride, const void *u, void *grad_x, int64_t x_stride, float *parts,
                     int64_t size, int steps, float theta, float keep, float every, int kind, int surrogate, int threads) {
    ND_EACH_BLOCK(
        lif_backward_block(g, g_stride, u, grad_x, x_stride, size, steps, at, count, theta, keep, every, kind, surrogate))
}

void nd_levels_forward(const void *x, void *counts, float *parts, int64_t size, float before, float inverse,
                       float after, float levels, int kind, int threads) {
    ND_EACH_BLOCK(levels_forward_block(x, counts, at, count, before, inverse, after, levels, kind))
}

void nd_levels_backward(const void *g, const void *x, void *grad_x, float *parts, int64_t size, float inverse,
                        float low, float high, float every, int kind, int threads) {
    ND_EACH_BLOCK(levels_backward_block(g, x, grad_x, at, count, inverse, low, high, every, kind))
}
