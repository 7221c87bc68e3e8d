/* The integer peak of one core: multiply-accumulates of int8, in sums that never leave the registers.
 *
 * Loaded by bench_simulator.py. nd_peak runs 'rounds' times twelve instructions on twelve sums; the caller divides.
 */
#define _DEFAULT_SOURCE /* syscall() */
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define SUM512(i) __m512i s##i = _mm512_set1_epi32(i);
#define DOT512(i) __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(s##i) : "v"(x), "v"(w));
#define ADD512(i) total += _mm512_reduce_add_epi32(s##i);
#define SUM256(i) __m256i s##i = _mm256_set1_epi16(i);
#define DOT256(i)                                                                \
    __asm__ volatile("vpmaddubsw %1, %2, %%ymm15\n\tvpaddw %%ymm15, %0, %0"      \
                     : "+x"(s##i) : "x"(w), "x"(x) : "xmm15");
#define ADD256(i) total += _mm256_extract_epi16(s##i, 0);

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static int64_t peak512(int64_t rounds) {
    TWELVE(SUM512)
    const __m512i x = _mm512_set1_epi8(1), w = x;
    for (int64_t i = 0; i < rounds; i++) { TWELVE(DOT512) }
    int64_t total = 0;
    TWELVE(ADD512)
    return total;
}

__attribute__((target("avx2"))) static int64_t peak256(int64_t rounds) {
    TWELVE(SUM256)
    const __m256i x = _mm256_set1_epi8(1), w = x;
    for (int64_t i = 0; i < rounds; i++) { TWELVE(DOT256) }
    int64_t total = 0;
    TWELVE(ADD256)
    return total;
}

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#define PRODUCT(SUM, X, W) __asm__ volatile("tdpbusd %%tmm" #W ", %%tmm" #X ", %%tmm" #SUM : :)

static const struct {
    uint8_t palette, start, unused[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tiles = {.palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

/* The same for AMX: 'rounds' times four products of tiles of 16 x 64 and 64 x 16. The caller has made sure of AMX. */
int64_t nd_amx_peak(int64_t rounds) {
    static uint8_t ones[1024];
    if (syscall(SYS_arch_prctl, 0x1023L, 18L)) return -1;
    for (int i = 0; i < 1024; i++) ones[i] = 1;
    __asm__ volatile("ldtilecfg %0" : : "m"(tiles));
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm4\n\ttileloadd (%0,%1,1), %%tmm5\n\ttileloadd (%0,%1,1), %%tmm6\n\t"
                     "tileloadd (%0,%1,1), %%tmm7" : : "r"(ones), "r"(64L) : "memory");
    for (int64_t i = 0; i < rounds; i++) {
        PRODUCT(0, 4, 6);
        PRODUCT(1, 4, 7);
        PRODUCT(2, 5, 6);
        PRODUCT(3, 5, 7);
    }
    __asm__ volatile("tilerelease" : :);
    return 0;
}
int64_t nd_amx_peak_macs(void) { return 4 * 16 * 16 * 64; }
#else
int64_t nd_amx_peak(int64_t rounds) { return rounds; }
int64_t nd_amx_peak_macs(void) { return 0; }
#endif

/* Multiply-accumulates of one round; 0 where this machine has neither instruction. */
int64_t nd_peak_macs(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) return 12 * 64;
    return __builtin_cpu_supports("avx2") ? 12 * 32 : 0;
}

int64_t nd_peak(int64_t rounds) { return nd_peak_macs() == 12 * 64 ? peak512(rounds) : peak256(rounds); }

/* Twelve vpmaddubsw with twelve additions, 12 * 32 multiply-accumulates a round: what AVX2 has. For machines with nd_peak_macs(). */
int64_t nd_avx2_peak(int64_t rounds) { return peak256(rounds); }
#else
int64_t nd_peak_macs(void) { return 0; }
int64_t nd_peak(int64_t rounds) { return rounds; }
int64_t nd_avx2_peak(int64_t rounds) { return rounds; }
int64_t nd_amx_peak_macs(void) { return 0; }
int64_t nd_amx_peak(int64_t rounds) { return rounds; }
#endif
