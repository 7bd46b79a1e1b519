/* One network at a time, many steps at a time: SGD on a multilayer perceptron while its weights stay in cache.
 *
 * A stack of small networks is limited by how fast weights and activations reach the arithmetic units. Stepping
 * model after model keeps one model's weights in the innermost caches for a whole epoch; threads over models
 * (in kernel.py) then fill the cores, and since no number crosses from one model to another, a run's bits do not
 * depend on its neighbors or on how many threads there are.
 */
#include "mlp.h"

/* Number of REALs of zeroed workspace that batches of at most `rows` rows need. */
long workspace(const Net *net, long rows) {
    Model model;
    return lay_out(&model, net, rows, 0) - (REAL *)0 + rows * (long)(sizeof(int64_t) / sizeof(REAL));
}

/* v ← μ v + g, w ← w − lr v for a vector whose gradient is in hand. */
static inline void descend(REAL *w, REAL *v, const vec *gradient, int j, REAL lr, REAL momentum) {
    vec step = *gradient;
    if (momentum != 0) step = AT(v + j) = momentum * AT(v + j) + step;
    AT(w + j) -= lr * step;
}

static void backward_and_step(Model *model, const REAL *input, long rows, long group, REAL lr, REAL momentum) {
    for (int l = model->depth - 1; l >= 0; l--) {
        Layer *at = model->layer + l;
        REAL *d = model->delta;
        const REAL *below = l ? model->layer[l - 1].hidden : input;
        for (int j = 0; j < at->out; j += LANES) {
            vec d_shift = {0}, d_gain = {0}, gain = AT(at->gain + j);
            for (long s = 0; s < rows; s++) {
                vec dy = AT(d + s * at->out + j);
                d_shift += dy;
                if (at->norm) d_gain += dy * AT(at->normed + s * at->out + j);
            }
            if (at->norm) { /* dz = γ/σ (dy − ⟨dy⟩ − ẑ⟨dy ẑ⟩), ⟨·⟩ over the group */
                for (long start = 0, g = 0; start < rows; start += group, g++) {
                    vec mean = {0}, along = {0}, scale = gain * AT(at->inverse + g * at->out + j);
                    for (long s = start; s < start + group; s++) {
                        mean += AT(d + s * at->out + j);
                        along += AT(d + s * at->out + j) * AT(at->normed + s * at->out + j);
                    }
                    mean /= (REAL)group, along /= (REAL)group;
                    for (long s = start; s < start + group; s++) {
                        vec unit = AT(at->normed + s * at->out + j);
                        AT(d + s * at->out + j) = scale * (AT(d + s * at->out + j) - mean - unit * along);
                    }
                }
                descend(at->gain, at->v_gain, &d_gain, j, lr, momentum);
            }
            descend(at->shift, at->v_shift, &d_shift, j, lr, momentum);
        }
        if (l) { /* before W changes: dL/dh = dL/dz Wᵀ, and through the ReLU below */
            transpose(at->weight, model->flip, at->in, at->out, at->out, at->in);
            product(rows, at->in, at->out, d, at->out, 1, model->flip, at->in, model->back, at->in, 0, 1);
            for (long i = 0; i < rows * at->in; i += LANES) {
                AT(model->back + i) = rectify(AT(below + i), AT(model->back + i));
            }
        }
        if (momentum == 0) {
            product(at->in, at->out, rows, below, 1, at->in, d, at->out, at->weight, at->out, 1, -lr);
        } else {
            product(at->in, at->out, rows, below, 1, at->in, d, at->out, at->v_weight, at->out, momentum, 1);
            for (long i = 0; i < (long)at->in * at->out; i += LANES) AT(at->weight + i) -= lr * AT(at->v_weight + i);
        }
        REAL *swap = model->delta;
        model->delta = model->back, model->back = swap;
    }
}

/* Multiplies each example's dL/dlogits by its weight. */
static void weigh(Model *model, const REAL *weight, long rows) {
    int ld = model->layer[model->depth - 1].out;
    for (long s = 0; s < rows; s++)
        for (int j = 0; j < ld; j += LANES) AT(model->delta + s * ld + j) *= weight[s];
}

/* SGD of one network over `steps` batches of `rows` examples; θ (and velocity, unless momentum is 0) change in
 * place. x (N, padded inputs); label (N,); order (steps, rows); lr (steps,). A step descends (1/rows) Σ w ℓ, with its
 * row of weights (steps, rows) or, where `weights` is null, w = 1; and with its row of `drawn` (steps, rows) or, where
 * that is null, each example's own label. A mean loss of the batch, all w = 1, that is not finite or exceeds `limit`
 * stops before its update. Returns the number of updates made: `steps`, or fewer if it diverged. */
long advance(const Net *net, REAL *theta, REAL *velocity, const REAL *x, const int64_t *label, const int64_t *order,
        const REAL *weights, const int64_t *drawn, const REAL *lr, long steps, long rows, REAL momentum, REAL limit,
        REAL *work) {
    Model model;
    long group = net->group > 0 && net->group < rows ? net->group : rows, done = 0;
    int64_t *batch_label = (int64_t *)lay_out(&model, net, rows, work);
    move(net, &model, theta, 0, 0);
    if (momentum != 0) move(net, &model, velocity, 1, 0);
    int in = model.layer[0].in;
    for (; done < steps; done++) {
        const int64_t *batch = order + done * rows;
        for (long s = 0; s < rows; s++) {
            memcpy(model.input + s * in, x + batch[s] * in, in * sizeof(REAL));
            batch_label[s] = drawn ? drawn[done * rows + s] : label[batch[s]];
        }
        forward(&model, model.input, rows, group, group);
        REAL loss = loss_gradient(&model, batch_label, rows);
        if (!(loss <= limit)) break;
        if (weights) weigh(&model, weights + done * rows, rows);
        backward_and_step(&model, model.input, rows, group, lr[done], momentum);
    }
    move(net, &model, theta, 0, 1);
    if (momentum != 0) move(net, &model, velocity, 1, 1);
    return done;
}

/* Outputs (rows, K) of one network on x (rows, padded inputs); batch norm takes its statistics from the first
 * `counted` rows (the training set), whatever follows them. */
void outputs(const Net *net, REAL *theta, const REAL *x, long rows, long counted, REAL *out, REAL *work) {
    Model model;
    lay_out(&model, net, rows, work);
    move(net, &model, theta, 0, 0);
    forward(&model, x, rows, rows, counted);
    const Layer *last = model.layer + net->depth - 1;
    for (long s = 0; s < rows; s++)
        memcpy(out + s * model.outputs, last->hidden + s * last->out, model.outputs * sizeof(REAL));
}
