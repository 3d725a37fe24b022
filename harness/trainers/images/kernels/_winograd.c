/* Convolutions of stride 1 and kernels of 3x3 or 5x5, by Winograd's minimal filtering, on a CPU with AVX512-BF16.
 *
 * Eight-point tiles: a tile of 8x8 inputs gives MxM outputs with M = 9 - R for kernels of RxR, all from the same points
 * 0, 1, -1, 2, -2, 1/2, -1/2, infinity. Within a tile a convolution is 64 products where the direct way needs M*M*R*R:
 * 6.25 times fewer for R = 5. Inputs and outputs are bfloat16, everything in between is float32, so that a result
 * is off by rounding it once, and by float32 rounding of values as large as the largest of its tile.
 *
 * With `pool`, 2x2 max-pooling and ReLU follow before anything is written: of the convolution's output only the pooled
 * values and where they came from are kept.
 *
 * Lavin, Gray: Fast algorithms for convolutional neural networks (2016). The matrices
 * are Toom and Cook's for these points: B of inputs, G of weights, A of outputs.
 *
 * Axes: n images, h rows, w columns, c channels (ci of inputs, co of outputs), all channels-last; t tiles, p = 64 points.
 * Transformed arrays are [p][t][c]. Vectors hold 16 channels. One thread.
 */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef __m512 vec;

#define LANES 16
#define POINTS 64
#define ALWAYS static inline __attribute__((always_inline))
#define GAP 16 /* floats between the points' arrays: strides that are powers of two would share few cache sets */
#define INACTIVE 4 /* instead of a place 0..3: the ReLU let nothing through */

ALWAYS vec splat(float value) { return _mm512_set1_ps(value); }
ALWAYS vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
ALWAYS vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
ALWAYS vec scaled(float a, vec b) { return _mm512_mul_ps(splat(a), b); }
ALWAYS vec fma_(float a, vec b, vec c) { return _mm512_fmadd_ps(splat(a), b, c); }

ALWAYS vec widen(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }
ALWAYS __m256i narrow(vec v) { return (__m256i)_mm512_cvtneps_pbh(v); }
ALWAYS vec load_bf16(const bf16 *from) { return widen(_mm256_loadu_si256((const __m256i *)from)); }
ALWAYS void store_bf16(bf16 *to, vec v) { _mm256_storeu_si256((__m256i *)to, narrow(v)); }

/* ---- one-dimensional transforms ---------------------------------------------------------------------------------- */

/* Eight neighbouring inputs to eight points: B' d. */
ALWAYS void input_to_points(const vec d[8], vec v[8]) {
    vec even, odd;
    v[0] = fma_(5.25f, sub(d[4], d[2]), sub(d[0], d[6]));
    v[7] = fma_(5.25f, sub(d[3], d[5]), sub(d[7], d[1]));
    even = fma_(-4.25f, d[4], add(d[2], d[6]));
    odd = fma_(-4.25f, d[3], add(d[1], d[5]));
    v[1] = add(even, odd), v[2] = sub(even, odd);
    even = fma_(0.25f, d[2], fma_(-1.25f, d[4], d[6]));
    odd = fma_(0.5f, d[1], fma_(-2.5f, d[3], add(d[5], d[5])));
    v[3] = add(even, odd), v[4] = sub(even, odd);
    even = fma_(4.0f, d[2], fma_(-5.0f, d[4], d[6]));
    odd = fma_(0.5f, d[5], fma_(-2.5f, d[3], add(d[1], d[1])));
    v[5] = add(even, odd), v[6] = sub(even, odd);
}

/* The transpose, for gradients by inputs: B x. */
ALWAYS void points_to_input(const vec x[8], vec d[8]) {
    vec s1 = add(x[1], x[2]), e1 = sub(x[1], x[2]);
    vec s2 = add(x[3], x[4]), e2 = sub(x[3], x[4]);
    vec sh = add(x[5], x[6]), eh = sub(x[5], x[6]);
    d[0] = x[0];
    d[1] = sub(fma_(0.5f, e2, fma_(2.0f, eh, e1)), x[7]);
    d[2] = fma_(-5.25f, x[0], fma_(0.25f, s2, fma_(4.0f, sh, s1)));
    d[3] = fma_(5.25f, x[7], fma_(-4.25f, e1, scaled(-2.5f, add(e2, eh))));
    d[4] = fma_(5.25f, x[0], fma_(-4.25f, s1, fma_(-1.25f, s2, scaled(-5.0f, sh))));
    d[5] = fma_(-5.25f, x[7], fma_(2.0f, e2, fma_(0.5f, eh, e1)));
    d[6] = sub(add(s1, add(s2, sh)), x[0]);
    d[7] = x[7];
}

/* Eight points to M neighbouring outputs: A' x. */
ALWAYS void points_to_output(const int M, const vec x[8], vec y[6]) {
    vec s1 = add(x[1], x[2]), e1 = sub(x[1], x[2]);
    vec s2 = add(x[3], x[4]), e2 = sub(x[3], x[4]);
    vec sh = add(x[5], x[6]), eh = sub(x[5], x[6]);
    y[0] = add(add(x[0], s1), add(s2, sh));
    y[1] = fma_(2.0f, e2, fma_(0.5f, eh, e1));
    y[2] = fma_(4.0f, s2, fma_(0.25f, sh, s1));
    y[3] = fma_(8.0f, e2, fma_(0.125f, eh, e1));
    if (M > 4) {
        y[4] = fma_(16.0f, s2, fma_(0.0625f, sh, s1));
        y[5] = fma_(32.0f, e2, fma_(0.03125f, eh, e1));
    }
    y[M - 1] = add(y[M - 1], x[7]);
}

/* The transpose, for gradients: A y. */
ALWAYS void output_to_points(const int M, const vec y[6], vec z[8]) {
    vec even = add(y[0], y[2]), odd = add(y[1], y[3]);
    vec even2 = fma_(4.0f, y[2], y[0]), odd2 = fma_(8.0f, y[3], add(y[1], y[1]));
    vec evenh = fma_(0.25f, y[2], y[0]), oddh = fma_(0.125f, y[3], scaled(0.5f, y[1]));
    if (M > 4) {
        even = add(even, y[4]), odd = add(odd, y[5]);
        even2 = fma_(16.0f, y[4], even2), odd2 = fma_(32.0f, y[5], odd2);
        evenh = fma_(0.0625f, y[4], evenh), oddh = fma_(0.03125f, y[5], oddh);
    }
    z[0] = y[0], z[7] = y[M - 1];
    z[1] = add(even, odd), z[2] = sub(even, odd);
    z[3] = add(even2, odd2), z[4] = sub(even2, odd2);
    z[5] = add(evenh, oddh), z[6] = sub(evenh, oddh);
}

/* R weights to eight points: G g, the powers of each point over the product of its distances to the others. */
ALWAYS void kernel_to_points(const int R, const vec g[5], vec u[8]) {
    vec even = add(g[0], g[2]), odd = g[1];
    vec even2 = fma_(4.0f, g[2], g[0]), odd2 = add(g[1], g[1]);
    vec evenh = fma_(0.25f, g[2], g[0]), oddh = scaled(0.5f, g[1]);
    if (R == 5) {
        even = add(even, g[4]), odd = add(odd, g[3]);
        even2 = fma_(16.0f, g[4], even2), odd2 = fma_(8.0f, g[3], odd2);
        evenh = fma_(0.0625f, g[4], evenh), oddh = fma_(0.125f, g[3], oddh);
    }
    u[0] = g[0], u[7] = g[R - 1];
    u[1] = scaled(-2.0f / 9, add(even, odd)), u[2] = scaled(-2.0f / 9, sub(even, odd));
    u[3] = scaled(1.0f / 90, add(even2, odd2)), u[4] = scaled(1.0f / 90, sub(even2, odd2));
    u[5] = scaled(32.0f / 45, add(evenh, oddh)), u[6] = scaled(32.0f / 45, sub(evenh, oddh));
}

/* The transpose, for gradients by weights: G' u. */
ALWAYS void points_to_kernel(const int R, const vec u[8], vec g[5]) {
    vec s1 = scaled(-2.0f / 9, add(u[1], u[2])), e1 = scaled(-2.0f / 9, sub(u[1], u[2]));
    vec s2 = scaled(1.0f / 90, add(u[3], u[4])), e2 = scaled(1.0f / 90, sub(u[3], u[4]));
    vec sh = scaled(32.0f / 45, add(u[5], u[6])), eh = scaled(32.0f / 45, sub(u[5], u[6]));
    g[0] = add(add(u[0], s1), add(s2, sh));
    g[1] = fma_(2.0f, e2, fma_(0.5f, eh, e1));
    g[2] = fma_(4.0f, s2, fma_(0.25f, sh, s1));
    if (R == 5) {
        g[3] = fma_(8.0f, e2, fma_(0.125f, eh, e1));
        g[4] = fma_(16.0f, s2, fma_(0.0625f, sh, s1));
    }
    g[R - 1] = add(g[R - 1], u[7]);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* c[R][16 V] = a[R][k] b[k][16 V] */
ALWAYS void product(const int R, const int V, int k, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    vec sums[12][2];
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) sums[i][v] = _mm512_setzero_ps();
    for (int j = 0; j < k; j++) {
        vec row[2];
        for (int v = 0; v < V; v++) row[v] = _mm512_loadu_ps(b + j * ldb + v * LANES);
        for (int i = 0; i < R; i++) {
            vec factor = splat(a[i * lda + j]);
            for (int v = 0; v < V; v++) sums[i][v] = _mm512_fmadd_ps(factor, row[v], sums[i][v]);
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) _mm512_storeu_ps(c + i * ldc + v * LANES, sums[i][v]);
}

ALWAYS void product_rows(const int V, int rows, int k, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    int i = 0;
    for (; i + 12 <= rows; i += 12) product(12, V, k, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
    for (; i + 4 <= rows; i += 4) product(4, V, k, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
    for (; i < rows; i++) product(1, V, k, a + i * lda, lda, b, ldb, c + i * ldc, ldc);
}

/* c[R][16 V] += sum over t of a[t][R] b[t][16 V] */
ALWAYS void outer(const int R, const int V, int tiles, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    vec sums[8][2];
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) sums[i][v] = _mm512_loadu_ps(c + i * ldc + v * LANES);
    for (int t = 0; t < tiles; t++) {
        vec row[2];
        for (int v = 0; v < V; v++) row[v] = _mm512_loadu_ps(b + t * ldb + v * LANES);
        for (int i = 0; i < R; i++) {
            vec factor = splat(a[t * lda + i]);
            for (int v = 0; v < V; v++) sums[i][v] = _mm512_fmadd_ps(factor, row[v], sums[i][v]);
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) _mm512_storeu_ps(c + i * ldc + v * LANES, sums[i][v]);
}

ALWAYS void outer_rows(const int V, int rows, int tiles, const float *a, long lda, const float *b, long ldb, float *c, long ldc) {
    int i = 0;
    for (; i + 8 <= rows; i += 8) outer(8, V, tiles, a + i, lda, b, ldb, c + i * ldc, ldc);
    for (; i < rows; i++) outer(1, V, tiles, a + i, lda, b, ldb, c + i * ldc, ldc);
}

/* ---- the shape of one convolution ---------------------------------------------------------------------------------- */

typedef struct {
    int n, h, w, ci, co, R, M, pool;
    int rows, columns;          /* of tiles of an image */
    int ph, pw;                 /* of an image with its padding, whole tiles */
    int lanes;                  /* ci, rounded up to whole vectors */
    int images;                 /* in a block */
} shape_t;

static shape_t shape_of(int n, int h, int w, int ci, int co, int R, int pool) {
    shape_t s = {.n = n, .h = h, .w = w, .ci = ci, .co = co, .R = R, .M = 9 - R, .pool = pool};
    s.rows = (h + s.M - 1) / s.M, s.columns = (w + s.M - 1) / s.M;
    s.ph = s.rows * s.M + R - 1, s.pw = s.columns * s.M + R - 1;
    s.lanes = (ci + LANES - 1) / LANES * LANES;
    /* In a block, at least those of one image: few enough that they stay in the caches of one core, and the more the larger
     * the weights are, which come from memory once for each block. */
    int tiles = ci * co / 256 < 32 ? 32 : ci * co / 256 > 128 ? 128 : ci * co / 256;
    int images = tiles / (s.rows * s.columns);
    s.images = images < 1 ? 1 : images > n ? n : images;
    return s;
}

static long stride_of(const shape_t *s, int channels) { return (long)s->images * s->rows * s->columns * channels + GAP; }

/* An image into the middle of a zeroed, padded one. */
static void pad(const shape_t *s, const bf16 *image, float *padded) {
    int edge = s->R / 2;
    for (int y = 0; y < s->h; y++)
        for (int x = 0; x < s->w; x++) {
            const bf16 *from = image + ((long)y * s->w + x) * s->ci;
            float *to = padded + ((long)(y + edge) * s->pw + x + edge) * s->lanes;
            int c = 0;
            for (; c + LANES <= s->ci; c += LANES) _mm512_storeu_ps(to + c, load_bf16(from + c));
            if (c < s->ci) {
                __mmask16 mask = (__mmask16)((1u << (s->ci - c)) - 1);
                _mm512_storeu_ps(to + c, widen(_mm256_maskz_loadu_epi16(mask, from + c)));
            }
        }
}

/* Padded inputs of one image to points: V[p][first_tile ...][lanes]. */
ALWAYS void transform_input(const shape_t *s, const float *padded, float *V, long stride, long first_tile) {
    for (int ty = 0; ty < s->rows; ty++)
        for (int tx = 0; tx < s->columns; tx++)
            for (int c = 0; c < s->lanes; c += LANES) {
                vec half[8][8]; /* [point of the row axis][column] */
                const float *corner = padded + ((long)ty * s->M * s->pw + tx * s->M) * s->lanes + c;
                for (int x = 0; x < 8; x++) {
                    vec d[8], v[8];
                    for (int y = 0; y < 8; y++) d[y] = _mm512_loadu_ps(corner + ((long)y * s->pw + x) * s->lanes);
                    input_to_points(d, v);
                    for (int p = 0; p < 8; p++) half[p][x] = v[p];
                }
                float *to = V + (first_tile + ty * s->columns + tx) * s->lanes + c;
                for (int p = 0; p < 8; p++) {
                    vec v[8];
                    input_to_points(half[p], v);
                    for (int q = 0; q < 8; q++) _mm512_storeu_ps(to + (p * 8 + q) * stride, v[q]);
                }
            }
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

/* The larger of 2x2 outputs as bfloat16, after a ReLU, with its place: the first of equals, as PyTorch's pooling. */
ALWAYS void pool_and_clip(vec a, vec b, vec c, vec d, bf16 *to, uint8_t *place) {
    vec values[4] = {widen(narrow(a)), widen(narrow(b)), widen(narrow(c)), widen(narrow(d))};
    vec best = values[0];
    __m128i where = _mm_setzero_si128();
    for (int i = 1; i < 4; i++) {
        __mmask16 wins = _mm512_cmp_ps_mask(values[i], best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(values[i], values[i], _CMP_UNORD_Q);
        best = _mm512_mask_mov_ps(best, wins, values[i]);
        where = _mm_mask_mov_epi8(where, wins, _mm_set1_epi8((char)i));
    }
    __mmask16 off = _mm512_cmp_ps_mask(best, _mm512_setzero_ps(), _CMP_LE_OQ);
    store_bf16(to, _mm512_mask_mov_ps(best, off, _mm512_setzero_ps()));
    if (place) _mm_storeu_si128((__m128i *)place, _mm_mask_mov_epi8(where, off, _mm_set1_epi8(INACTIVE)));
}

/* Points of one image to outputs. M[p][first_tile ...][width], channels c0 to c0 + width of all. */
ALWAYS void transform_output(const int M, const shape_t *s, const float *points, long stride, long first_tile, int c0, int width,
                             const float *bias, bf16 *y, uint8_t *places) {
    int oh = s->pool ? s->h / 2 : s->h, ow = s->pool ? s->w / 2 : s->w;
    for (int ty = 0; ty < s->rows; ty++)
        for (int tx = 0; tx < s->columns; tx++)
            for (int c = 0; c < width; c += LANES) {
                vec half[6][8], out[6][6];
                const float *from = points + (first_tile + ty * s->columns + tx) * width + c;
                vec constant = _mm512_loadu_ps(bias + c0 + c);
                for (int q = 0; q < 8; q++) {
                    vec x[8], v[6];
                    for (int p = 0; p < 8; p++) x[p] = _mm512_loadu_ps(from + (p * 8 + q) * stride);
                    points_to_output(M, x, v);
                    for (int i = 0; i < M; i++) half[i][q] = v[i];
                }
                for (int i = 0; i < M; i++) {
                    points_to_output(M, half[i], out[i]);
                    for (int j = 0; j < M; j++) out[i][j] = add(out[i][j], constant);
                }
                if (s->pool) {
                    for (int i = 0; i < M / 2; i++)
                        for (int j = 0; j < M / 2; j++) {
                            int oy = ty * M / 2 + i, ox = tx * M / 2 + j;
                            if (oy >= oh || ox >= ow) continue;
                            long at = ((long)oy * ow + ox) * s->co + c0 + c;
                            pool_and_clip(out[2 * i][2 * j], out[2 * i][2 * j + 1], out[2 * i + 1][2 * j], out[2 * i + 1][2 * j + 1],
                                          y + at, places ? places + at : 0);
                        }
                } else {
                    for (int i = 0; i < M; i++)
                        for (int j = 0; j < M; j++) {
                            int oy = ty * M + i, ox = tx * M + j;
                            if (oy < oh && ox < ow) store_bf16(y + ((long)oy * ow + ox) * s->co + c0 + c, out[i][j]);
                        }
                }
            }
}

ALWAYS void forward(const int M, const shape_t *s, const bf16 *x, const float *U, const float *bias, bf16 *y, uint8_t *places, float *scratch) {
    long per_image = (long)s->rows * s->columns, v_stride = stride_of(s, s->lanes), m_stride = stride_of(s, 2 * LANES);
    long pixels_in = (long)s->h * s->w * s->ci, pixels_out = s->pool ? (long)(s->h / 2) * (s->w / 2) * s->co : (long)s->h * s->w * s->co;
    float *padded = scratch, *V = padded + (long)s->ph * s->pw * s->lanes, *points = V + POINTS * v_stride;
    memset(padded, 0, sizeof(float) * s->ph * s->pw * s->lanes);
    for (int n0 = 0; n0 < s->n; n0 += s->images) {
        int images = s->n - n0 < s->images ? s->n - n0 : s->images;
        for (int i = 0; i < images; i++) {
            pad(s, x + (n0 + i) * pixels_in, padded);
            transform_input(s, padded, V, v_stride, i * per_image);
        }
        for (int c0 = 0; c0 < s->co; c0 += 2 * LANES) {
            int width = s->co - c0 < 2 * LANES ? LANES : 2 * LANES;
            for (int p = 0; p < POINTS; p++) {
                const float *factors = U + (long)p * s->ci * s->co + c0;
                if (width == 2 * LANES)
                    product_rows(2, images * per_image, s->ci, V + p * v_stride, s->lanes, factors, s->co, points + p * m_stride, width);
                else
                    product_rows(1, images * per_image, s->ci, V + p * v_stride, s->lanes, factors, s->co, points + p * m_stride, width);
            }
            for (int i = 0; i < images; i++)
                transform_output(M, s, points, m_stride, i * per_image, c0, width, bias, y + (n0 + i) * pixels_out,
                                 places ? places + (n0 + i) * pixels_out : 0);
        }
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

/* Gradients by one image's outputs to points, Z[p][first_tile ...][co]; adds them up for the bias. */
ALWAYS void transform_gradient(const int M, const shape_t *s, const bf16 *dy, const uint8_t *places, float *Z, long stride, long first_tile,
                               float *dbias) {
    int oh = s->pool ? s->h / 2 : s->h, ow = s->pool ? s->w / 2 : s->w;
    for (int c = 0; c < s->co; c += LANES) {
        vec total = _mm512_loadu_ps(dbias + c);
        for (int ty = 0; ty < s->rows; ty++)
            for (int tx = 0; tx < s->columns; tx++) {
                vec out[6][6], half[8][6];
                if (s->pool) {
                    for (int i = 0; i < M / 2; i++)
                        for (int j = 0; j < M / 2; j++) {
                            int oy = ty * M / 2 + i, ox = tx * M / 2 + j;
                            vec g = _mm512_setzero_ps();
                            __m128i where = _mm_set1_epi8(INACTIVE);
                            if (oy < oh && ox < ow) {
                                long at = ((long)oy * ow + ox) * s->co + c;
                                g = load_bf16(dy + at);
                                where = _mm_loadu_si128((const __m128i *)(places + at));
                            }
                            for (int k = 0; k < 4; k++) {
                                __mmask16 here = _mm_cmpeq_epi8_mask(where, _mm_set1_epi8((char)k));
                                vec part = _mm512_maskz_mov_ps(here, g);
                                out[2 * i + k / 2][2 * j + k % 2] = part;
                                total = add(total, part);
                            }
                        }
                } else {
                    for (int i = 0; i < M; i++)
                        for (int j = 0; j < M; j++) {
                            int oy = ty * M + i, ox = tx * M + j;
                            out[i][j] = oy < oh && ox < ow ? load_bf16(dy + ((long)oy * ow + ox) * s->co + c) : _mm512_setzero_ps();
                            total = add(total, out[i][j]);
                        }
                }
                for (int j = 0; j < M; j++) {
                    vec column[6], z[8];
                    for (int i = 0; i < M; i++) column[i] = out[i][j];
                    output_to_points(M, column, z);
                    for (int p = 0; p < 8; p++) half[p][j] = z[p];
                }
                float *to = Z + (first_tile + ty * s->columns + tx) * s->co + c;
                for (int p = 0; p < 8; p++) {
                    vec z[8];
                    output_to_points(M, half[p], z);
                    for (int q = 0; q < 8; q++) _mm512_storeu_ps(to + (p * 8 + q) * stride, z[q]);
                }
            }
        _mm512_storeu_ps(dbias + c, total);
    }
}

/* Points of one image to gradients by its inputs, added up where tiles overlap. */
ALWAYS void transform_to_input(const shape_t *s, const float *points, long stride, long first_tile, int width, float *padded) {
    for (int ty = 0; ty < s->rows; ty++)
        for (int tx = 0; tx < s->columns; tx++)
            for (int c = 0; c < width; c += LANES) {
                vec half[8][8];
                const float *from = points + (first_tile + ty * s->columns + tx) * width + c;
                for (int q = 0; q < 8; q++) {
                    vec x[8], d[8];
                    for (int p = 0; p < 8; p++) x[p] = _mm512_loadu_ps(from + (p * 8 + q) * stride);
                    points_to_input(x, d);
                    for (int y = 0; y < 8; y++) half[y][q] = d[y];
                }
                float *corner = padded + ((long)ty * s->M * s->pw + tx * s->M) * width + c;
                for (int y = 0; y < 8; y++) {
                    vec d[8];
                    points_to_input(half[y], d);
                    for (int x = 0; x < 8; x++) {
                        float *at = corner + ((long)y * s->pw + x) * width;
                        _mm512_storeu_ps(at, add(_mm512_loadu_ps(at), d[x]));
                    }
                }
            }
}

ALWAYS void backward(const int M, const shape_t *s, const bf16 *x, const float *UT, const bf16 *dy, const uint8_t *places, bf16 *dx,
                     float *dU, float *dbias, float *scratch) {
    long per_image = (long)s->rows * s->columns, v_stride = stride_of(s, s->lanes), z_stride = stride_of(s, s->co);
    long d_stride = stride_of(s, 2 * LANES), pixels_in = (long)s->h * s->w * s->ci;
    long pixels_out = s->pool ? (long)(s->h / 2) * (s->w / 2) * s->co : (long)s->h * s->w * s->co;
    long padded_size = (long)s->ph * s->pw * s->lanes;
    float *padded = scratch, *sums = padded + padded_size, *V = sums + (long)s->ph * s->pw * 2 * LANES;
    float *Z = V + POINTS * v_stride, *points = Z + POINTS * z_stride;
    int edge = s->R / 2;
    memset(padded, 0, sizeof(float) * padded_size);
    memset(dU, 0, sizeof(float) * POINTS * s->ci * s->co);
    memset(dbias, 0, sizeof(float) * s->co);
    for (int n0 = 0; n0 < s->n; n0 += s->images) {
        int images = s->n - n0 < s->images ? s->n - n0 : s->images;
        for (int i = 0; i < images; i++) {
            pad(s, x + (n0 + i) * pixels_in, padded);
            transform_input(s, padded, V, v_stride, i * per_image);
            transform_gradient(M, s, dy + (n0 + i) * pixels_out, places ? places + (n0 + i) * pixels_out : 0, Z, z_stride, i * per_image, dbias);
        }
        for (int p = 0; p < POINTS; p++) {
            float *sum = dU + (long)p * s->ci * s->co;
            for (int c0 = 0; c0 < s->co; c0 += 2 * LANES) {
                if (s->co - c0 >= 2 * LANES)
                    outer_rows(2, s->ci, images * per_image, V + p * v_stride, s->lanes, Z + p * z_stride + c0, s->co, sum + c0, s->co);
                else
                    outer_rows(1, s->ci, images * per_image, V + p * v_stride, s->lanes, Z + p * z_stride + c0, s->co, sum + c0, s->co);
            }
        }
        if (!dx) continue;
        for (int c0 = 0; c0 < s->ci; c0 += 2 * LANES) {
            int width = s->ci - c0 < 2 * LANES ? LANES : 2 * LANES;
            for (int p = 0; p < POINTS; p++) {
                const float *factors = UT + (long)p * s->ci * s->co + c0;
                if (width == 2 * LANES)
                    product_rows(2, images * per_image, s->co, Z + p * z_stride, s->co, factors, s->ci, points + p * d_stride, width);
                else
                    product_rows(1, images * per_image, s->co, Z + p * z_stride, s->co, factors, s->ci, points + p * d_stride, width);
            }
            for (int i = 0; i < images; i++) {
                memset(sums, 0, sizeof(float) * s->ph * s->pw * width);
                transform_to_input(s, points, d_stride, i * per_image, width, sums);
                for (int y = 0; y < s->h; y++)
                    for (int k = 0; k < s->w; k++)
                        for (int c = 0; c < width; c += LANES)
                            store_bf16(dx + (n0 + i) * pixels_in + ((long)y * s->w + k) * s->ci + c0 + c,
                                       _mm512_loadu_ps(sums + ((long)(y + edge) * s->pw + k + edge) * width + c));
            }
        }
    }
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* All kernels, [R * R][count], to points, U[64][count]; count is a multiple of a vector. */
ALWAYS void transform_kernels(const int R, long count, const bf16 *weights, float *U) {
    for (long k = 0; k < count; k += LANES) {
        vec half[8][5];
        for (int x = 0; x < R; x++) {
            vec g[5], u[8];
            for (int y = 0; y < R; y++) g[y] = load_bf16(weights + (y * R + x) * count + k);
            kernel_to_points(R, g, u);
            for (int p = 0; p < 8; p++) half[p][x] = u[p];
        }
        for (int p = 0; p < 8; p++) {
            vec u[8];
            kernel_to_points(R, half[p], u);
            for (int q = 0; q < 8; q++) _mm512_storeu_ps(U + (p * 8 + q) * count + k, u[q]);
        }
    }
}

/* Gradients by points, dU[64][count], to gradients by kernels, [R * R][count]. */
ALWAYS void transform_to_kernels(const int R, long count, const float *dU, bf16 *gradients) {
    for (long k = 0; k < count; k += LANES) {
        vec half[5][8];
        for (int q = 0; q < 8; q++) {
            vec u[8], g[5];
            for (int p = 0; p < 8; p++) u[p] = _mm512_loadu_ps(dU + (p * 8 + q) * count + k);
            points_to_kernel(R, u, g);
            for (int y = 0; y < R; y++) half[y][q] = g[y];
        }
        for (int y = 0; y < R; y++) {
            vec g[5];
            points_to_kernel(R, half[y], g);
            for (int x = 0; x < R; x++) store_bf16(gradients + (y * R + x) * count + k, g[x]);
        }
    }
}

/* ---- what Python calls --------------------------------------------------------------------------------------------- */

/* To be counted up, here and in hardware.py, whenever a function below takes or needs anything else. */
int winograd_interface(void) { return 1; }

/* Each returns 0, or 1 for a kernel size that there is nothing for. Weights are bfloat16 [R][R][in][out] channels. */

/* Floats of scratch memory that either direction needs. */
long winograd_scratch(int n, int h, int w, int ci, int co, int R, int pool) {
    shape_t s = shape_of(n, h, w, ci, co, R, pool);
    long tiles = stride_of(&s, s.lanes) + stride_of(&s, co) + stride_of(&s, 2 * LANES);
    return (long)s.ph * s.pw * (s.lanes + 2 * LANES) + POINTS * (tiles + 2L * ci * co);
}

/* y: the convolution and its bias, with `pool` pooled and clipped; `places` (uint8, as y, or null) is for backward. */
int winograd_forward(int n, int h, int w, int ci, int co, int R, int pool, const bf16 *x, const bf16 *weights, const float *bias,
                     bf16 *y, uint8_t *places, float *scratch) {
    shape_t s = shape_of(n, h, w, ci, co, R, pool);
    float *U = scratch, *rest = U + (long)POINTS * ci * co;
    if (R == 3) {
        transform_kernels(3, (long)ci * co, weights, U);
        forward(6, &s, x, U, bias, y, places, rest);
    } else if (R == 5) {
        transform_kernels(5, (long)ci * co, weights, U);
        forward(4, &s, x, U, bias, y, places, rest);
    } else
        return 1;
    return 0;
}

/* Gradients: dweights [R][R][ci][co], dbias [co], and dx unless it and `transposed`, the weights as [R][R][co][ci], are null. */
int winograd_backward(int n, int h, int w, int ci, int co, int R, int pool, const bf16 *x, const bf16 *transposed, const bf16 *dy,
                      const uint8_t *places, bf16 *dx, bf16 *dweights, float *dbias, float *scratch) {
    shape_t s = shape_of(n, h, w, ci, co, R, pool);
    long count = (long)ci * co;
    float *UT = scratch, *dU = UT + POINTS * count, *rest = dU + POINTS * count;
    if (R == 3) {
        if (dx) transform_kernels(3, count, transposed, UT);
        backward(6, &s, x, UT, dy, places, dx, dU, dbias, rest);
        transform_to_kernels(3, count, dU, dweights);
    } else if (R == 5) {
        if (dx) transform_kernels(5, count, transposed, UT);
        backward(4, &s, x, UT, dy, places, dx, dU, dbias, rest);
        transform_to_kernels(5, count, dU, dweights);
    } else
        return 1;
    return 0;
}
