/* The AMX path: products of int8 in tiles, 16 places by 16 channels by 64 inputs an instruction. Part of kernel.c.
 *
 * Only the dense form of sources of spike counts is different from the path before it. A row of a kernel reads bytes of the source
 * that lie side by side, so that a tile holds several taps where they fit; weights are stored in tiles, with zeros where a
 * row of the kernel ends inside one. What a tile reads beyond the row it multiplies by those zeros.
 */

#define ND_TARGET_AMX \
    __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi2,avx2,popcnt,bmi")))

/* Rows, bytes of a row, and places that are computed together. */
#define ND_TILE 16
#define ND_TILE_BYTES 64

/* Written out, with what compilers must not move across them. */
#define ND_LOAD(TILE, FROM, STRIDE) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #TILE : : "r"(FROM), "r"(STRIDE) : "memory")
#define ND_STORE(TILE, TO, STRIDE) \
    __asm__ volatile("tilestored %%tmm" #TILE ", (%0,%1,1)" : : "r"(TO), "r"(STRIDE) : "memory")
#define ND_ZERO(TILE) __asm__ volatile("tilezero %%tmm" #TILE : :)
#define ND_MULTIPLY(SUM, COUNTS, WEIGHTS) \
    __asm__ volatile("tdpbusd %%tmm" #WEIGHTS ", %%tmm" #COUNTS ", %%tmm" #SUM : :)

/* All tiles are whole: eight of 16 rows of 64 bytes. */
static const struct {
    uint8_t palette, start, unused[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} nd_tiles = {.palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

ND_TARGET_AMX ND_INLINE void amx_begin(void) { __asm__ volatile("ldtilecfg %0" : : "m"(nd_tiles)); }

ND_TARGET_AMX ND_INLINE void amx_end(void) { __asm__ volatile("tilerelease" : :); }

/* Whether this machine has AMX, its operating system too, and lets this process use it. */
static int amx_usable(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 24) || !(d & 1u << 25)) return 0;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & 1u << 27)) return 0; /* xgetbv */
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 3u << 17) != 3u << 17) return 0;
    const long tile_data = 18, ask = 0x1023; /* XFEATURE_XTILEDATA, ARCH_REQ_XCOMP_PERM */
    return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}

#ifdef __SANITIZE_ADDRESS__
/* The sanitizer does not look into instructions that are written out: this touches what a tile touches. */
ND_INLINE void amx_touch(const void *at, int64_t stride) {
    for (int row = 0; row < ND_TILE; row++) {
        const volatile uint8_t *bytes = (const uint8_t *)at + row * stride;
        (void)bytes[0];
        (void)bytes[ND_TILE_BYTES - 1];
    }
}
#else
ND_INLINE void amx_touch(const void *at, int64_t stride) {
    (void)at;
    (void)stride;
}
#endif

/* Sums of 16 * 'high' places and 16 * 'wide' channels: 2 by 2, 2 by 1, or 1 by 3, 2, 1. */
ND_TARGET_AMX ND_INLINE void amx_block(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int first, int32_t *out, const int high,
    const int wide) {
    const int64_t line = 4 * (int64_t)layer->channels, next = term->next_place;
    const int64_t reach = (int64_t)term->column_dilation * term->place_bytes;
    const int8_t *weights = (const int8_t *)term->weights + 4 * first;
    ND_ZERO(0);
    if (wide > 1) ND_ZERO(1);
    if (wide > 2 || high > 1) ND_ZERO(2);
    if (wide > 1 && high > 1) ND_ZERO(3);
    for (int row = 0; row < term->rows; row++) {
        for (int part = 0; part < term->parts; part++) {
            const uint8_t *counts = source + (int64_t)row * term->row_dilation * term->row_bytes + part * reach;
            for (int chunk = 0; chunk < term->chunks; chunk++, counts += ND_TILE_BYTES, weights += ND_TILE * line) {
                amx_touch(counts, next);
                amx_touch(weights, line);
                ND_LOAD(4, counts, next);
                if (high > 1) {
                    amx_touch(counts + ND_TILE * next, next);
                    ND_LOAD(5, counts + ND_TILE * next, next);
                }
                ND_LOAD(6, weights, line);
                ND_MULTIPLY(0, 4, 6);
                if (high > 1) ND_MULTIPLY(2, 5, 6);
                if (wide > 1) {
                    ND_LOAD(7, weights + 64, line);
                    ND_MULTIPLY(1, 4, 7);
                    if (high > 1) ND_MULTIPLY(3, 5, 7);
                }
                if (wide > 2) {
                    ND_LOAD(5, weights + 128, line);
                    ND_MULTIPLY(2, 4, 5);
                }
            }
        }
    }
    out += first;
    amx_touch(out, line);
    ND_STORE(0, out, line);
    if (wide > 1) ND_STORE(1, out + 16, line);
    if (wide > 2) ND_STORE(2, out + 32, line);
    if (high > 1) {
        amx_touch(out + ND_TILE * layer->channels, line);
        ND_STORE(2, out + ND_TILE * layer->channels, line);
        if (wide > 1) ND_STORE(3, out + ND_TILE * layer->channels + 16, line);
    }
}

/* Sums of whole tiles; what lies beyond 'places' is computed on what lies there, and never read. */
ND_TARGET_AMX ND_INLINE void amx_products(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *out, int places) {
    const int channels = layer->channels, odd = channels % (2 * ND_TILE) != 0;
    if (places <= ND_TILE || channels == 3 * ND_TILE) { /* three sums at a time keep the tiles as busy as four */
        for (int start = 0; start < places; start += ND_TILE) {
            const uint8_t *at = source + start * term->next_place;
            int32_t *to = out + (int64_t)start * channels;
            for (int first = 0; first < channels;) {
                const int left = (channels - first) / ND_TILE, now = left == 4 ? 2 : left < 3 ? left : 3;
                if (now == 3) amx_block(layer, term, at, first, to, 1, 3);
                else if (now == 2) amx_block(layer, term, at, first, to, 1, 2);
                else amx_block(layer, term, at, first, to, 1, 1);
                first += now * ND_TILE;
            }
        }
        return;
    }
    const int even = channels - (odd ? ND_TILE : 0);
    for (int first = 0; first < even; first += 2 * ND_TILE) amx_block(layer, term, source, first, out, 2, 2);
    if (odd) amx_block(layer, term, source, even, out, 2, 1);
}

/* Places that are computed together. */
#define ND_BLOCK_TILED 32

/* As the other terms, for up to ND_BLOCK_TILED places. Behind the sums there is room for as many more. */
ND_TARGET_AMX ND_INLINE void term_amx(
    const nd_layer *layer, const nd_term *term, const uint8_t *source, int32_t *sums, int places, int add) {
    const int channels = layer->channels;
    if (!term->chunks) {
        for (int start = 0; start < places; start += ND_PIXELS)
            term_avx512(
                layer, term, source + start * term->next_place, sums + (int64_t)start * channels, ND_PIXELS, add);
        return;
    }
    int32_t *out = add ? sums + (int64_t)ND_BLOCK_TILED * channels : sums;
    amx_products(layer, term, source, out, places);
    if (!add && !term->shift) return;
    const __m128i shift = _mm_cvtsi32_si128(term->shift);
    for (int i = 0; i < places * channels; i += ND_LANES) {
        const __m512i sum = _mm512_sll_epi32(_mm512_loadu_si512(out + i), shift);
        _mm512_storeu_si512(sums + i, add ? _mm512_add_epi32(_mm512_loadu_si512(sums + i), sum) : sum);
    }
}

ND_DEFINE_ROW(
    row_in_tiles, ND_TARGET_AMX, term_amx, add_steps, events_vbmi2, count_avx512, fire_avx512, bits_kept, tally_avx512, ND_BLOCK_TILED)

ND_TARGET_AMX static void row_amx(const nd_layer *layer, int row, int32_t *scratch) {
    amx_begin();
    row_in_tiles(layer, row, scratch);
    amx_end();
}
