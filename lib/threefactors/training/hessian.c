/* Products of the Hessian of the mean loss with a vector, by the R-operator (Pearlmutter 1994).
 *
 * R{f} is the derivative of f along v. `prepare` does the forward and the backward pass at θ once and keeps them;
 * `hessian_product` then carries R{·} through both. Batch norm takes its statistics from all rows.
 */
#include "mlp.h"

/* What a layer keeps at θ: dL/dz, and with batch norm dL/dy before it; and R{h}, R{ẑ}, ⟨ẑ R{z}⟩ along v. */
typedef struct {
    REAL *delta, *upstream, *r_hidden, *r_normed, *shrink, *weight, *shift, *gain; /* the last three: of H v */
} Bent;

typedef struct {
    Model model;
    Bent layer[MAX_DEPTH];
    REAL *probability, *r_delta, *r_below;
} Curved;

static REAL *lay_out_curved(Curved *c, const Net *net, long rows, REAL *work) {
    long widest = 0;
    work = lay_out(&c->model, net, rows, work);
    for (int l = 0; l < net->depth; l++) {
        Layer *at = c->model.layer + l;
        Bent *b = c->layer + l;
        b->delta = take(&work, rows * at->out);
        b->upstream = at->norm ? take(&work, rows * at->out) : 0;
        b->r_hidden = take(&work, rows * at->out);
        b->r_normed = at->norm ? take(&work, rows * at->out) : 0;
        b->shrink = at->norm ? take(&work, at->out) : 0;
        b->weight = take(&work, (long)at->in * at->out);
        b->shift = take(&work, at->out), b->gain = take(&work, at->out);
        if (at->out > widest) widest = at->out;
    }
    c->probability = take(&work, rows * c->model.layer[net->depth - 1].out);
    c->r_delta = take(&work, rows * widest), c->r_below = take(&work, rows * widest);
    return work;
}

/* Number of REALs of zeroed workspace, for one network and `rows` examples. */
long hessian_workspace(const Net *net, long rows) {
    Curved c;
    return lay_out_curved(&c, net, rows, 0) - (REAL *)0;
}

/* Column means ⟨a⟩ and ⟨a b⟩ (and ⟨a b + c e⟩ where c is given) over the rows, for the LANES columns at j. */
static inline void means(const REAL *a, const REAL *b, const REAL *c, const REAL *e, long rows, long ld, int j,
        vec *mean, vec *along) {
    vec sum = {0}, both = {0};
    for (long s = 0; s < rows; s++) {
        vec one = AT(a + s * ld + j);
        sum += one;
        both += one * AT(b + s * ld + j);
        if (c) both += AT(c + s * ld + j) * AT(e + s * ld + j);
    }
    *mean = sum / (REAL)rows, *along = both / (REAL)rows;
}

void prepare(const Net *net, REAL *theta, const REAL *x, const int64_t *label, long rows, REAL *work) {
    Curved c;
    lay_out_curved(&c, net, rows, work);
    Model *model = &c.model;
    move(net, model, theta, 0, 0);
    forward(model, x, rows, rows, rows);
    loss_gradient(model, label, rows);
    int last = net->depth - 1, ld = model->layer[last].out;
    memcpy(c.layer[last].delta, model->delta, rows * ld * sizeof(REAL));
    memcpy(c.probability, model->delta, rows * ld * sizeof(REAL));
    for (long s = 0; s < rows; s++) { /* d = (p − onehot)/rows */
        for (int i = 0; i < ld; i++) c.probability[s * ld + i] *= rows;
        c.probability[s * ld + label[s]] += 1;
    }
    for (int l = last; l > 0; l--) {
        Layer *at = model->layer + l, *below = at - 1;
        REAL *to = below->norm ? c.layer[l - 1].upstream : c.layer[l - 1].delta;
        transpose(at->weight, model->flip, at->in, at->out, at->out, at->in);
        product(rows, at->in, at->out, c.layer[l].delta, at->out, 1, model->flip, at->in, to, at->in, 0, 1);
        for (long i = 0; i < rows * at->in; i += LANES) AT(to + i) = rectify(AT(below->hidden + i), AT(to + i));
        if (!below->norm) continue;
        for (int j = 0; j < at->in; j += LANES) {
            vec mean, tilt, scale = AT(below->gain + j) * AT(below->inverse + j);
            means(to, below->normed, 0, 0, rows, at->in, j, &mean, &tilt);
            for (long k = j; k < rows * at->in; k += at->in)
                AT(c.layer[l - 1].delta + k) = scale * (AT(to + k) - mean - tilt * AT(below->normed + k));
        }
    }
}

/* R{z} → R{h}: through batch norm, R{ẑ} = (R{z} − ⟨R{z}⟩ − ẑ⟨ẑ R{z}⟩)/σ, and the ReLU. */
static void bend_forward(const Layer *at, Bent *b, long rows, int hidden) {
    for (int j = 0; j < at->out; j += LANES) {
        vec mean = {0}, shrink = {0}, shift = AT(at->v_shift + j);
        if (at->norm) {
            means(b->r_hidden, at->normed, 0, 0, rows, at->out, j, &mean, &shrink);
            AT(b->shrink + j) = shrink;
        }
        for (long k = j; k < rows * at->out; k += at->out) {
            vec r = AT(b->r_hidden + k);
            if (at->norm) {
                vec unit = AT(at->normed + k);
                AT(b->r_normed + k) = r = (r - mean - unit * shrink) * AT(at->inverse + j);
                r = AT(at->v_gain + j) * unit + AT(at->gain + j) * r;
            }
            r += shift;
            AT(b->r_hidden + k) = hidden ? rectify(AT(at->hidden + k), r) : r;
        }
    }
}

/* R{dL/dy} → R{dL/dz} through batch norm, and the entries of H v for γ and β (or the bias). */
static void bend_backward(const Layer *at, Bent *b, REAL *rd, long rows) {
    for (int j = 0; j < at->out; j += LANES) {
        vec sum = {0};
        for (long k = j; k < rows * at->out; k += at->out) sum += AT(rd + k);
        AT(b->shift + j) = sum;
        if (!at->norm) continue;
        vec mean, tilt, r_mean, turn, inverse = AT(at->inverse + j), scale = AT(at->gain + j) * inverse;
        means(b->upstream, at->normed, 0, 0, rows, at->out, j, &mean, &tilt);
        means(rd, at->normed, b->upstream, b->r_normed, rows, at->out, j, &r_mean, &turn);
        AT(b->gain + j) = turn * (REAL)rows;
        vec r_scale = AT(at->v_gain + j) * inverse - scale * inverse * AT(b->shrink + j); /* R{γ/σ} */
        for (long k = j; k < rows * at->out; k += at->out) {
            vec unit = AT(at->normed + k);
            AT(rd + k) = r_scale * (AT(b->upstream + k) - mean - unit * tilt)
                       + scale * (AT(rd + k) - r_mean - AT(b->r_normed + k) * tilt - unit * turn);
        }
    }
}

/* out = H v, after `prepare` on the same workspace. */
void hessian_product(const Net *net, REAL *v, const REAL *x, long rows, REAL *out, REAL *work) {
    Curved c;
    lay_out_curved(&c, net, rows, work);
    Model *model = &c.model;
    move(net, model, v, 1, 0);
    int last = net->depth - 1;
    for (int l = 0; l <= last; l++) {
        Layer *at = model->layer + l;
        const REAL *h = l ? at[-1].hidden : x;
        product(rows, at->out, at->in, h, at->in, 1, at->v_weight, at->out, c.layer[l].r_hidden, at->out, 0, 1);
        if (l)
            product(rows, at->out, at->in, c.layer[l - 1].r_hidden, at->in, 1, at->weight, at->out,
                    c.layer[l].r_hidden, at->out, 1, 1);
        bend_forward(at, c.layer + l, rows, l < last);
    }
    long ld = model->layer[last].out;
    for (long s = 0; s < rows; s++) { /* the Hessian of the softmax, (diag(p) − ppᵀ)/rows; of the square, I/rows */
        REAL *r = c.layer[last].r_hidden + s * ld, *p = c.probability + s * ld, *d = c.r_delta + s * ld, mean = 0;
        int squared = net->loss == SQUARED;
        for (int i = 0; i < ld && !squared; i++) mean += p[i] * r[i];
        for (int i = 0; i < ld; i++) d[i] = squared ? r[i] / rows : p[i] * (r[i] - mean) / rows;
    }
    for (int l = last; l >= 0; l--) {
        Layer *at = model->layer + l;
        Bent *b = c.layer + l;
        const REAL *h = l ? at[-1].hidden : x;
        bend_backward(at, b, c.r_delta, rows);
        product(at->in, at->out, rows, h, 1, at->in, c.r_delta, at->out, b->weight, at->out, 0, 1);
        if (!l) break;
        product(at->in, at->out, rows, c.layer[l - 1].r_hidden, 1, at->in, b->delta, at->out, b->weight, at->out, 1, 1);
        transpose(at->weight, model->flip, at->in, at->out, at->out, at->in);
        product(rows, at->in, at->out, c.r_delta, at->out, 1, model->flip, at->in, c.r_below, at->in, 0, 1);
        transpose(at->v_weight, model->flip, at->in, at->out, at->out, at->in);
        product(rows, at->in, at->out, b->delta, at->out, 1, model->flip, at->in, c.r_below, at->in, 1, 1);
        for (long i = 0; i < rows * at->in; i += LANES)
            AT(c.r_below + i) = rectify(AT(at[-1].hidden + i), AT(c.r_below + i));
        REAL *swap = c.r_delta;
        c.r_delta = c.r_below, c.r_below = swap;
    }
    for (int l = 0; l <= last; l++) { /* hand the result over in the layout of θ */
        model->layer[l].v_weight = c.layer[l].weight;
        model->layer[l].v_shift = c.layer[l].shift, model->layer[l].v_gain = c.layer[l].gain;
    }
    move(net, model, out, 1, 1);
}
