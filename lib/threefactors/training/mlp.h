/* Multilayer perceptrons on padded vectors: layout, matrix products, forward pass and loss.
 *
 * Compiled once for each precision: REAL is float or double, REAL_BITS the integer of its size, LANES how many fill
 * a vector register. Every width is padded to a multiple of LANES; padded columns hold zeros and stay zero under every
 * operation.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef REAL vec __attribute__((vector_size(LANES * sizeof(REAL))));
typedef REAL loose __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)))); /* any address */
#define AT(p) (*(loose *)(p))
#define MAX_DEPTH 64
#define REGISTERS (LANES * sizeof(REAL) == 32 ? 16 : 32) /* of AVX2; of AVX-512 and of NEON */
#define EPSILON ((REAL)1e-5) /* added to a batch variance, as torch.nn.BatchNorm1d does */

enum { CROSS_ENTROPY, SQUARED };

typedef struct {
    int32_t depth;               /* number of weight matrices */
    int32_t group;               /* rows that share batch-norm statistics; 0: no batch norm */
    int32_t loss;
    int32_t width[MAX_DEPTH + 1]; /* inputs, hidden widths, outputs */
} Net;

static inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

/* C[m, n] = keep C + scale Σ_k A[m, k] B[k, n], with A[m, k] at a[m·row + k·col]. B and C are row-major with
 * padded rows. A tile of M rows × V vectors of C lives in registers while k runs. */
#define TILE(M, V)                                                                                                  \
    static inline __attribute__((always_inline)) void tile_##M##_##V(int k_end, const REAL *a, long row, long col,  \
            const REAL *b, long ldb, REAL *c, long ldc, REAL keep, REAL scale) {                                    \
        vec sum[M][V];                                                                                              \
        for (int m = 0; m < M; m++) for (int v = 0; v < V; v++) sum[m][v] = (vec){0};                               \
        for (int k = 0; k < k_end; k++) {                                                                           \
            vec right[V];                                                                                           \
            for (int v = 0; v < V; v++) right[v] = AT(b + k * ldb + v * LANES);                                     \
            for (int m = 0; m < M; m++) {                                                                           \
                REAL left = a[m * row + k * col];                                                                   \
                for (int v = 0; v < V; v++) sum[m][v] += left * right[v];                                           \
            }                                                                                                       \
        }                                                                                                           \
        for (int m = 0; m < M; m++) for (int v = 0; v < V; v++) {                                                   \
            REAL *to = c + m * ldc + v * LANES;                                                                     \
            AT(to) = keep == 0 ? scale * sum[m][v] : keep * AT(to) + scale * sum[m][v];                             \
        }                                                                                                           \
    }
TILE(6, 4) TILE(4, 4) TILE(2, 4) TILE(1, 4)
TILE(6, 2) TILE(4, 2) TILE(2, 2) TILE(1, 2)
TILE(6, 1) TILE(4, 1) TILE(2, 1) TILE(1, 1)

#define ROWS(V)                                                                                                     \
    static inline __attribute__((always_inline)) void rows_##V(int m_end, int k_end, const REAL *a, long row,       \
            long col, const REAL *b, long ldb, REAL *c, long ldc, REAL keep, REAL scale) {                          \
        int m = 0;                                                                                                  \
        int sixes = m_end % 4 == 0 && m_end < 24 ? 0 : m_end / 6 * 6; /* 8 = 4 + 4 beats 6 + 2 */                   \
        for (; m < sixes; m += 6) tile_6_##V(k_end, a + m * row, row, col, b, ldb, c + m * ldc, ldc, keep, scale);  \
        for (; m + 4 <= m_end; m += 4)                                                                              \
            tile_4_##V(k_end, a + m * row, row, col, b, ldb, c + m * ldc, ldc, keep, scale);                        \
        for (; m + 2 <= m_end; m += 2)                                                                              \
            tile_2_##V(k_end, a + m * row, row, col, b, ldb, c + m * ldc, ldc, keep, scale);                        \
        for (; m < m_end; m++) tile_1_##V(k_end, a + m * row, row, col, b, ldb, c + m * ldc, ldc, keep, scale);     \
    }
ROWS(4) ROWS(2) ROWS(1)

#define BLOCK 256 /* of k: 256 rows of four vectors of B stay in the cache while every tile of A passes */

/* One block of k. `keep` is a constant where it is called, which spares the commonest case a load and a branch. */
static inline __attribute__((always_inline)) void block(int m, int n, int k_end, const REAL *a, long row, long col,
        const REAL *b, long ldb, REAL *c, long ldc, REAL keep, REAL scale) {
    int j = 0;
    if (REGISTERS >= 32)
        for (; j + 4 * LANES <= n; j += 4 * LANES) rows_4(m, k_end, a, row, col, b + j, ldb, c + j, ldc, keep, scale);
    for (; j + 2 * LANES <= n; j += 2 * LANES) rows_2(m, k_end, a, row, col, b + j, ldb, c + j, ldc, keep, scale);
    for (; j < n; j += LANES) rows_1(m, k_end, a, row, col, b + j, ldb, c + j, ldc, keep, scale);
}

static void add_block(int m, int n, int k_end, const REAL *a, long row, long col, const REAL *b, long ldb, REAL *c,
        long ldc, REAL scale) {
    block(m, n, k_end, a, row, col, b, ldb, c, ldc, 1, scale);
}

static inline __attribute__((always_inline)) void product(int m, int n, int k_end, const REAL *a, long row, long col,
        const REAL *b, long ldb, REAL *c, long ldc, REAL keep, REAL scale) {
    block(m, n, k_end < BLOCK ? k_end : BLOCK, a, row, col, b, ldb, c, ldc, keep, scale);
    for (int k = BLOCK; k < k_end; k += BLOCK)
        add_block(m, n, k_end - k < BLOCK ? k_end - k : BLOCK, a + k * col, row, col, b + k * ldb, ldb, c, ldc, scale);
}

typedef REAL_BITS bits __attribute__((vector_size(LANES * sizeof(REAL))));

/* `value` where gate > 0, else 0. A NaN in the gate lets the value through: it must surface in the loss. */
static inline vec rectify(vec gate, vec value) { return (vec)((bits)value & ~(bits)(gate <= 0)); }

/* e^x for x ≤ 0: x = n ln 2 + r with |r| ≤ ½ ln 2, e^r by its Taylor series to the last bit, 2ⁿ by ldexp on the
 * bits. Far below the range the result is a harmless tiny number instead of an underflow. */
static inline vec exponential(vec x) {
    const int wide = sizeof(REAL) == 8;
    const REAL floor_at = wide ? -700 : -86;
    vec low = (vec){0} + floor_at;
    x = (vec)(((bits)x & (x > low)) | ((bits)low & ~(x > low)));
    const REAL magic = wide ? 6755399441055744.0 : 12582912.0f; /* 1.5·2^52 or 2^23: adding it rounds to integer */
    vec shifted = x * (REAL)1.4426950408889634074 + magic;
    vec n = shifted - magic;
    vec r = x - n * (REAL)(wide ? 6.93147180369123816490e-01 : 6.93145752e-1);
    r -= n * (REAL)(wide ? 1.90821492927058770002e-10 : 1.42860677e-6);
    vec sum = (vec){0} + 1;
    for (int i = wide ? 13 : 7; i > 0; i--) sum = 1 + sum * r * ((REAL)1 / i);
    bits exponent = (bits)shifted << (wide ? 52 : 23); /* the low bits of `shifted` hold n */
    return (vec)((bits)sum + exponent);
}

static inline REAL total(vec v) {
    REAL sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* t = wᵀ. A square of LANES × LANES is transposed in registers: interleaving rows i and i + LANES/2, log₂ LANES times. */
static void transpose(const REAL *w, REAL *t, int rows, int cols, int ldw, int ldt) {
#ifdef __clang__
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) t[j * (long)ldt + i] = w[i * (long)ldw + j];
#else
    bits low, high;
    for (int i = 0; i < LANES; i++) low[i] = i / 2 + i % 2 * LANES, high[i] = low[i] + LANES / 2;
    for (int i = 0; i < rows; i += LANES)
        for (int j = 0; j < cols; j += LANES) {
            vec from[LANES], to[LANES];
            for (int r = 0; r < LANES; r++) from[r] = AT(w + (i + r) * (long)ldw + j);
            for (int stage = 1; stage < LANES; stage *= 2) {
                for (int r = 0; r < LANES / 2; r++) {
                    to[2 * r] = __builtin_shuffle(from[r], from[r + LANES / 2], low);
                    to[2 * r + 1] = __builtin_shuffle(from[r], from[r + LANES / 2], high);
                }
                for (int r = 0; r < LANES; r++) from[r] = to[r];
            }
            for (int r = 0; r < LANES; r++) AT(t + (j + r) * (long)ldt + i) = from[r];
        }
#endif
}

/* A layer's padded parameters, and room for one batch of its activations. */
typedef struct {
    int in, out, norm;                 /* padded widths; norm: batch norm follows the product */
    REAL *weight, *shift, *gain;       /* (in, out), (out,), (out,): W; bias or β; γ */
    REAL *v_weight, *v_shift, *v_gain; /* their velocities */
    REAL *hidden, *normed, *inverse;   /* (rows, out): output; normalized; (groups, out): 1/standard deviation */
} Layer;

typedef struct {
    int depth, group, loss, outputs;
    REAL *input, *delta, *back, *flip; /* batch (rows, in); dL/dz and dL/dh (rows, widest); a transposed W */
    Layer layer[MAX_DEPTH];
} Model;

static REAL *take(REAL **at, long n) {
    REAL *here = *at;
    *at += (n + LANES - 1) / LANES * LANES;
    return here;
}

/* Lays a model for batches of `rows` out in `work`; returns the first free place behind it. */
static REAL *lay_out(Model *model, const Net *net, long rows, REAL *work) {
    long widest = 0, largest = 0, groups = net->group > 0 && net->group < rows ? rows / net->group : 1;
    model->depth = net->depth, model->group = net->group, model->loss = net->loss;
    model->outputs = net->width[net->depth];
    for (int l = 0; l < net->depth; l++) {
        Layer *at = model->layer + l;
        at->in = padded(net->width[l]), at->out = padded(net->width[l + 1]);
        at->norm = net->group > 0 && l < net->depth - 1;
        long size = (long)at->in * at->out;
        at->weight = take(&work, size), at->shift = take(&work, at->out), at->gain = take(&work, at->out);
        at->v_weight = take(&work, size), at->v_shift = take(&work, at->out), at->v_gain = take(&work, at->out);
        at->hidden = take(&work, rows * at->out);
        at->normed = at->norm ? take(&work, rows * at->out) : 0;
        at->inverse = at->norm ? take(&work, groups * at->out) : 0;
        if (at->out > widest) widest = at->out;
        if (size > largest) largest = size;
    }
    model->input = take(&work, rows * model->layer[0].in);
    model->delta = take(&work, rows * widest), model->back = take(&work, rows * widest);
    model->flip = take(&work, largest);
    return work;
}

/* Between the flat vector (layer after layer: W, then bias, or W, γ, β) and the padded layers. */
static void move(const Net *net, Model *model, REAL *flat, int velocity, int out) {
    for (int l = 0; l < net->depth; l++) {
        Layer *at = model->layer + l;
        int rows = net->width[l], cols = net->width[l + 1];
        REAL *part[] = {velocity ? at->v_weight : at->weight, velocity ? at->v_gain : at->gain,
                        velocity ? at->v_shift : at->shift};
        for (int p = 0; p < 3; p++) {
            if (p == 1 && !at->norm) continue;
            for (int i = 0; i < (p == 0 ? rows : 1); i++, flat += cols) {
                REAL *inner = part[p] + (long)i * at->out;
                if (out) memcpy(flat, inner, cols * sizeof(REAL));
                else memcpy(inner, flat, cols * sizeof(REAL));
            }
        }
    }
}

/* z → γ (z − μ)/√(σ² + ε) + β within each group of rows, μ and σ² taken from the group's first `counted` rows. */
static void normalize(Layer *at, long rows, long group, long counted) {
    for (long start = 0, g = 0; start < rows; start += group, g++) {
        REAL *z = at->hidden + start * at->out, *normed = at->normed + start * at->out;
        for (int j = 0; j < at->out; j += LANES) {
            vec mean = {0}, square = {0};
            for (long s = 0; s < counted; s++) mean += AT(z + s * at->out + j);
            mean /= (REAL)counted;
            for (long s = 0; s < counted; s++) {
                vec centered = AT(z + s * at->out + j) - mean;
                square += centered * centered;
            }
            vec inverse;
            square = square / (REAL)counted + EPSILON;
            for (int i = 0; i < LANES; i++) inverse[i] = 1 / (sizeof(REAL) == 8 ? sqrt(square[i]) : sqrtf(square[i]));
            AT(at->inverse + g * at->out + j) = inverse;
            vec gain = AT(at->gain + j), shift = AT(at->shift + j);
            for (long s = 0; s < group; s++) {
                vec unit = (AT(z + s * at->out + j) - mean) * inverse;
                AT(normed + s * at->out + j) = unit;
                AT(z + s * at->out + j) = gain * unit + shift;
            }
        }
    }
}

static void forward(Model *model, const REAL *input, long rows, long group, long counted) {
    for (int l = 0; l < model->depth; l++) {
        Layer *at = model->layer + l;
        product(rows, at->out, at->in, input, at->in, 1, at->weight, at->out, at->hidden, at->out, 0, 1);
        if (at->norm) normalize(at, rows, group, counted);
        for (long s = 0; s < rows; s++)
            for (int j = 0; j < at->out; j += LANES) {
                vec z = AT(at->hidden + s * at->out + j);
                if (!at->norm) z += AT(at->shift + j);
                if (l < model->depth - 1) z = rectify(z, z);
                AT(at->hidden + s * at->out + j) = z;
            }
        input = at->hidden;
    }
}

/* Writes dL/dlogits, L the batch mean, into model->delta; returns L. */
static REAL loss_gradient(Model *model, const int64_t *label, long rows) {
    int ld = model->layer[model->depth - 1].out, k = model->outputs;
    REAL loss = 0;
    for (long s = 0; s < rows; s++) {
        REAL *z = model->layer[model->depth - 1].hidden + s * ld, *d = model->delta + s * ld, checked = 0;
        for (int i = 0; i < k; i++) checked += z[i];
        loss += 0 * checked; /* keeps a NaN or infinity that a maximum would hide */
        if (model->loss == SQUARED) { /* ½‖z − onehot‖² */
            for (int i = 0; i < ld; i++) {
                REAL error = i < k ? z[i] - (i == label[s]) : 0;
                loss += error * error / 2;
                d[i] = error / rows;
            }
            continue;
        }
        REAL top = z[0], sum = 0;
        for (int i = 1; i < k; i++) top = z[i] > top ? z[i] : top;
        for (int j = 0; j < ld; j += LANES) AT(d + j) = exponential(AT(z + j) - top);
        for (int i = 0; i < k; i++) sum += d[i];
        for (int i = k; i < ld; i++) d[i] = 0;
        for (int j = 0; j < ld; j += LANES) AT(d + j) *= 1 / (sum * rows);
        d[label[s]] -= (REAL)1 / rows;
        loss += (sizeof(REAL) == 8 ? log(sum) : logf(sum)) - (z[label[s]] - top);
    }
    return loss / rows;
}
