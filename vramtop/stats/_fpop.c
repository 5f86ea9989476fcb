/* The exact segmentation of fpop.py, of equal bits.
 *
 * The same operations in the same order in double precision; read PureFpop first. It is built
 * with -ffp-contract=off, because a fused multiply-add rounds once where Python rounds twice.
 * What is rare (thinning, pickling) stays in Python and takes the state out and in as a tuple.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0
#error "intermediate results wider than a double would change bits; fpop.py works without this"
#endif
#ifdef __FAST_MATH__
#error "fast math would change bits; fpop.py works without this"
#endif

typedef struct {
    double cost, weight, mean;
    PyObject *node;   /* owned */
    Py_ssize_t seen;  /* the push at which it last owned a piece */
    Py_ssize_t place; /* where it goes when the others have gone */
} Candidate;

typedef struct {
    double high;
    Py_ssize_t owner; /* place among the candidates */
} Piece;

typedef struct {
    PyObject_HEAD
    double penalty, cost, origin;
    Py_ssize_t max_pieces, runs, searched;
    PyObject *best, *newest;
    Candidate *candidates;
    Py_ssize_t n_candidates, room_candidates;
    Piece *pieces, *spare; /* two arrays of one size: each push writes the other one */
    PyObject **dead;       /* as many as candidates */
    Py_ssize_t n_pieces, room_pieces;
    char exact, busy;
} Fpop;

static PyObject *s_index, *s_parent;

static PyObject *
from_pure(const char *name)
{
    /* Not at import: fpop.py imports this module. */
    PyObject *module = PyImport_ImportModule("vramtop.stats.fpop");
    if (module == NULL)
        return NULL;
    PyObject *found = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return found;
}

static PyObject *node_type; /* kept for the life of the process */

static PyObject *
new_node(Py_ssize_t runs, PyObject *parent, PyObject *tag)
{
    if (node_type == NULL && (node_type = from_pure("Node")) == NULL)
        return NULL;
    PyObject *index = PyLong_FromSsize_t(runs);
    if (index == NULL)
        return NULL;
    PyObject *arguments[3] = {index, parent, tag};
    PyObject *node = PyObject_Vectorcall(node_type, arguments, 3, NULL);
    Py_DECREF(index);
    return node;
}

static int
reserve(Fpop *self, Py_ssize_t candidates, Py_ssize_t pieces)
{
    if (candidates > self->room_candidates) {
        Py_ssize_t room = candidates * 2;
        Candidate *grown = PyMem_Realloc(self->candidates, room * sizeof(Candidate));
        if (grown == NULL)
            goto none;
        self->candidates = grown;
        PyObject **dead = PyMem_Realloc(self->dead, room * sizeof(PyObject *));
        if (dead == NULL)
            goto none;
        self->dead = dead;
        self->room_candidates = room;
    }
    if (pieces > self->room_pieces) {
        Py_ssize_t room = pieces * 2;
        Piece *grown = PyMem_Realloc(self->pieces, room * sizeof(Piece));
        if (grown == NULL)
            goto none;
        self->pieces = grown;
        grown = PyMem_Realloc(self->spare, room * sizeof(Piece));
        if (grown == NULL)
            goto none;
        self->spare = grown;
        self->room_pieces = room;
    }
    return 0;
none:
    PyErr_NoMemory();
    return -1;
}

/* There is no tp_clear: a cycle through a node can be cut at the node, and an instance that still
   has methods is never without candidates. */
static int
fpop_traverse(Fpop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->best);
    Py_VISIT(self->newest);
    for (Py_ssize_t at = 0; at < self->n_candidates; at++)
        Py_VISIT(self->candidates[at].node);
    return 0;
}

static void
fpop_dealloc(Fpop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->best);
    Py_CLEAR(self->newest);
    for (Py_ssize_t at = 0; at < self->n_candidates; at++)
        Py_CLEAR(self->candidates[at].node);
    PyMem_Free(self->candidates);
    PyMem_Free(self->pieces);
    PyMem_Free(self->spare);
    PyMem_Free(self->dead);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
fpop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"penalty", "max_pieces", NULL};
    double penalty;
    Py_ssize_t max_pieces = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$dn:Fpop", names, &penalty, &max_pieces))
        return NULL;
    if (kwargs == NULL || PyDict_GetItemString(kwargs, "penalty") == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "Fpop() missing 1 required keyword-only argument: 'penalty'");
        return NULL;
    }
    if (PyDict_GetItemString(kwargs, "max_pieces") == NULL) {
        PyObject *bound = from_pure("MAX_PIECES");
        if (bound == NULL)
            return NULL;
        max_pieces = PyLong_AsSsize_t(bound);
        Py_DECREF(bound);
        if (max_pieces == -1 && PyErr_Occurred())
            return NULL;
    }
    Fpop *self = (Fpop *)type->tp_alloc(type, 0); /* all zero */
    if (self == NULL)
        return NULL;
    self->penalty = penalty;
    self->max_pieces = max_pieces;
    self->cost = -penalty;
    self->exact = 1;
    self->newest = new_node(0, Py_None, Py_None);
    if (self->newest == NULL || reserve(self, 8, 8) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->best = Py_NewRef(self->newest);
    self->candidates[0] = (Candidate){.node = Py_NewRef(self->newest)};
    self->n_candidates = 1;
    self->pieces[0] = (Piece){.high = INFINITY};
    self->n_pieces = 1;
    return (PyObject *)self;
}

static PyObject *fpop_getstate(Fpop *, PyObject *);
static PyObject *fpop_setstate(Fpop *, PyObject *);

static int
thin(Fpop *self)
{
    PyObject *thinned = from_pure("thinned");
    if (thinned == NULL)
        return -1;
    PyObject *state = fpop_getstate(self, NULL);
    PyObject *fewer = state == NULL ? NULL : PyObject_CallOneArg(thinned, state);
    PyObject *done = fewer == NULL ? NULL : fpop_setstate(self, fewer);
    Py_XDECREF(done);
    Py_XDECREF(fewer);
    Py_XDECREF(state);
    Py_DECREF(thinned);
    return done == NULL ? -1 : 0;
}

/* Everything of a push that is numbers. 0, or -1 with an exception set. */
static int
push(Fpop *self, double value, double weight, PyObject *tag)
{
    Py_ssize_t count = self->n_candidates;
    if (reserve(self, count + 1, 3 * self->n_pieces) < 0)
        return -1;
    Candidate *candidates = self->candidates;
    if (self->runs == 0)
        self->origin = value;
    value -= self->origin;
    Py_ssize_t best = count - 1;
    candidates[best].weight = 0.0;
    candidates[best].mean = value;
    double least = INFINITY;
    for (Py_ssize_t at = 0; at < count; at++) {
        Candidate *one = &candidates[at];
        double before = one->weight, mean = one->mean;
        double total = before + weight;
        double delta = value - mean;
        if (total == 0.0) {
            PyErr_SetString(PyExc_ZeroDivisionError, "float division by zero");
            return -1;
        }
        double share = delta * weight / total;
        one->weight = total;
        one->mean = mean + share;
        double cost = one->cost = one->cost + delta * share * before;
        if (cost <= least) {
            least = cost;
            best = at;
        }
    }
    Py_ssize_t runs = ++self->runs;
    self->cost = least;
    PyObject *old = self->best;
    self->best = Py_NewRef(candidates[best].node);
    Py_DECREF(old);
    double limit = least + self->penalty;
    PyObject *newest = new_node(runs, self->best, tag);
    if (newest == NULL)
        return -1;
    old = self->newest;
    self->newest = newest;
    Py_DECREF(old);

    Py_ssize_t fresh = count, last = -1, made = 0;
    Piece *found = self->spare;
    double low = -INFINITY;
    for (Py_ssize_t at = 0; at < self->n_pieces; at++) {
        double high = self->pieces[at].high;
        Py_ssize_t whose = self->pieces[at].owner;
        Candidate *owner = &candidates[whose];
        double left = INFINITY, right = -INFINITY;
        double slack = limit - owner->cost;
        if (slack > 0.0) {
            if (owner->weight == 0.0) {
                PyErr_SetString(PyExc_ZeroDivisionError, "float division by zero");
                return -1;
            }
            double squared = slack / owner->weight;
            if (squared < 0.0) {
                PyErr_SetString(PyExc_ValueError, "math domain error");
                return -1;
            }
            double reach = sqrt(squared);
            left = owner->mean - reach;
            right = owner->mean + reach;
            if (left < low)
                left = low;
            if (right > high)
                right = high;
        }
        if (left < right) {
            if (low < left) {
                if (last == fresh)
                    found[made - 1].high = left;
                else
                    found[made++] = (Piece){left, fresh};
            }
            found[made++] = (Piece){right, whose};
            last = whose;
            owner->seen = runs;
            if (right < high) {
                found[made++] = (Piece){high, fresh};
                last = fresh;
            }
        }
        else if (last == fresh)
            found[made - 1].high = high;
        else {
            found[made++] = (Piece){high, fresh};
            last = fresh;
        }
        low = high;
    }

    /* Places first: compacting overwrites the entries by whose old number the pieces ask. */
    Py_ssize_t kept = 0, n_dead = 0;
    for (Py_ssize_t at = 0; at < count; at++)
        if (candidates[at].seen == runs)
            candidates[at].place = kept++;
    for (Py_ssize_t at = 0; at < made; at++)
        found[at].owner = found[at].owner == fresh ? kept : candidates[found[at].owner].place;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (candidates[at].seen == runs)
            candidates[candidates[at].place] = candidates[at];
        else
            self->dead[n_dead++] = candidates[at].node;
    }
    candidates[kept] = (Candidate){.cost = limit, .node = Py_NewRef(newest), .seen = runs};
    self->n_candidates = kept + 1;
    self->spare = self->pieces;
    self->pieces = found;
    self->n_pieces = made;
    /* Last, because letting go of an object may run anything. */
    for (Py_ssize_t at = 0; at < n_dead; at++)
        Py_DECREF(self->dead[at]);
    return 0;
}

static PyObject *
fpop_push(Fpop *self, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2 || count > 3) {
        PyErr_Format(PyExc_TypeError, "push() takes 2 or 3 arguments (%zd given)", count);
        return NULL;
    }
    double value = PyFloat_AsDouble(args[0]);
    if (value == -1.0 && PyErr_Occurred())
        return NULL;
    double weight = PyFloat_AsDouble(args[1]);
    if (weight == -1.0 && PyErr_Occurred())
        return NULL;
    if (self->busy) { /* making a node may let another thread in, halfway through the arrays */
        PyErr_SetString(PyExc_RuntimeError, "push() is at work already");
        return NULL;
    }
    self->busy = 1;
    int failed = push(self, value, weight, count == 3 ? args[2] : Py_None);
    self->busy = 0;
    if (!failed && self->n_pieces > self->max_pieces)
        failed = thin(self);
    return failed ? NULL : Py_NewRef(self->newest);
}

/* The attribute `index` of a node; -1 with an exception. */
static Py_ssize_t
index_of(PyObject *node)
{
    PyObject *index = PyObject_GetAttr(node, s_index);
    if (index == NULL)
        return -1;
    Py_ssize_t number = PyLong_AsSsize_t(index);
    Py_DECREF(index);
    return number;
}

static PyObject *
fpop_settled(Fpop *self, PyObject *final)
{
    Py_ssize_t oldest = index_of(self->candidates[0].node);
    Py_ssize_t known = index_of(final);
    if (PyErr_Occurred())
        return NULL;
    if (oldest == known || oldest == self->searched)
        return Py_NewRef(final);
    self->searched = oldest;
    PyObject *shared = Py_NewRef(self->candidates[0].node);
    PyObject *node = NULL;
    for (Py_ssize_t at = 0; at < self->n_candidates; at++) {
        Py_XSETREF(node, Py_NewRef(self->candidates[at].node));
        while (node != shared) {
            if (node == Py_None)
                goto unchanged;
            Py_ssize_t here = index_of(node), there = index_of(shared);
            if (PyErr_Occurred())
                goto failed;
            PyObject *parent = PyObject_GetAttr(here > there ? node : shared, s_parent);
            if (parent == NULL)
                goto failed;
            if (here > there)
                Py_SETREF(node, parent);
            else if (parent == Py_None) {
                Py_DECREF(parent);
                goto unchanged;
            }
            else
                Py_SETREF(shared, parent);
        }
    }
    Py_XDECREF(node);
    return shared;
unchanged:
    Py_DECREF(node);
    Py_DECREF(shared);
    return Py_NewRef(final);
failed:
    Py_DECREF(node);
    Py_DECREF(shared);
    return NULL;
}

static PyObject *
fpop_changepoints(Fpop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *found = PyList_New(0);
    PyObject *node = Py_NewRef(self->best);
    while (found != NULL && node != Py_None) {
        PyObject *index = PyObject_GetAttr(node, s_index);
        Py_ssize_t number = index == NULL ? -1 : PyLong_AsSsize_t(index);
        if (number <= 0) {
            Py_XDECREF(index);
            break;
        }
        PyObject *parent = PyObject_GetAttr(node, s_parent);
        if (parent == NULL || PyList_Append(found, index) < 0)
            Py_CLEAR(found);
        Py_DECREF(index);
        Py_SETREF(node, parent);
        if (parent == NULL)
            break;
    }
    Py_XDECREF(node);
    if (PyErr_Occurred() || (found != NULL && PyList_Reverse(found) < 0))
        Py_CLEAR(found);
    return found;
}

static PyObject *
fpop_getstate(Fpop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *candidates = PyList_New(self->n_candidates);
    PyObject *highs = PyList_New(self->n_pieces);
    PyObject *owners = PyList_New(self->n_pieces);
    if (candidates == NULL || highs == NULL || owners == NULL)
        goto failed;
    for (Py_ssize_t at = 0; at < self->n_candidates; at++) {
        Candidate *one = &self->candidates[at];
        PyObject *row = Py_BuildValue("(dddO)", one->cost, one->weight, one->mean, one->node);
        if (row == NULL)
            goto failed;
        PyList_SET_ITEM(candidates, at, row);
    }
    for (Py_ssize_t at = 0; at < self->n_pieces; at++) {
        PyObject *high = PyFloat_FromDouble(self->pieces[at].high);
        PyObject *owner = PyLong_FromSsize_t(self->pieces[at].owner);
        if (high != NULL)
            PyList_SET_ITEM(highs, at, high);
        if (owner != NULL)
            PyList_SET_ITEM(owners, at, owner);
        if (high == NULL || owner == NULL)
            goto failed;
    }
    return Py_BuildValue("(dndNOOdnnNNN)", self->penalty, self->max_pieces, self->cost,
                         PyBool_FromLong(self->exact), self->best, self->newest, self->origin,
                         self->runs, self->searched, candidates, highs, owners);
failed:
    Py_XDECREF(candidates);
    Py_XDECREF(highs);
    Py_XDECREF(owners);
    return NULL;
}

static PyObject *
fpop_setstate(Fpop *self, PyObject *state)
{
    double penalty, cost, origin;
    Py_ssize_t max_pieces, runs, searched;
    int exact;
    PyObject *best, *newest, *candidates, *highs, *owners;
    if (!PyTuple_Check(state)) {
        PyErr_SetString(PyExc_TypeError, "the state is a tuple");
        return NULL;
    }
    if (!PyArg_ParseTuple(state, "dndpOOdnnO!O!O!", &penalty, &max_pieces, &cost, &exact, &best,
                          &newest, &origin, &runs, &searched, &PyList_Type, &candidates,
                          &PyList_Type, &highs, &PyList_Type, &owners))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(candidates), pieces = PyList_GET_SIZE(highs);
    if (count == 0 || pieces == 0 || PyList_GET_SIZE(owners) != pieces) {
        PyErr_SetString(PyExc_ValueError, "a state without candidates or pieces");
        return NULL;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "push() is at work");
        return NULL;
    }
    if (reserve(self, count, pieces) < 0)
        return NULL;
    Candidate *taken = PyMem_Calloc(self->room_candidates, sizeof(Candidate));
    if (taken == NULL)
        return PyErr_NoMemory();
    Py_ssize_t ready = 0;
    for (; ready < count; ready++) {
        Candidate *one = &taken[ready];
        PyObject *row = PyList_GET_ITEM(candidates, ready);
        if (!PyTuple_Check(row)) {
            PyErr_SetString(PyExc_TypeError, "a candidate is a tuple");
            goto failed;
        }
        if (!PyArg_ParseTuple(row, "dddO", &one->cost, &one->weight, &one->mean, &one->node))
            goto failed;
        Py_INCREF(one->node);
    }
    for (Py_ssize_t at = 0; at < pieces; at++) {
        double high = PyFloat_AsDouble(PyList_GET_ITEM(highs, at));
        Py_ssize_t owner = PyLong_AsSsize_t(PyList_GET_ITEM(owners, at));
        if (PyErr_Occurred())
            goto failed;
        if (owner < 0 || owner >= count) {
            PyErr_SetString(PyExc_ValueError, "a piece of nobody's");
            goto failed;
        }
        self->spare[at] = (Piece){high, owner};
    }
    Candidate *old = self->candidates;
    Piece *pieces_before = self->pieces;
    Py_ssize_t old_count = self->n_candidates;
    self->candidates = taken;
    self->n_candidates = count;
    self->pieces = self->spare;
    self->spare = pieces_before;
    self->n_pieces = pieces;
    self->penalty = penalty;
    self->max_pieces = max_pieces;
    self->cost = cost;
    self->exact = (char)exact;
    self->origin = origin;
    self->runs = runs;
    self->searched = searched;
    PyObject *old_best = self->best, *old_newest = self->newest;
    self->best = Py_NewRef(best);
    self->newest = Py_NewRef(newest);
    Py_DECREF(old_best);
    Py_DECREF(old_newest);
    for (Py_ssize_t at = 0; at < old_count; at++)
        Py_DECREF(old[at].node);
    PyMem_Free(old);
    Py_RETURN_NONE;
failed:
    for (Py_ssize_t at = 0; at < ready; at++)
        Py_DECREF(taken[at].node);
    PyMem_Free(taken);
    return NULL;
}

static PyObject *
fpop_reduce(Fpop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *restored = from_pure("restored");
    PyObject *state = restored == NULL ? NULL : fpop_getstate(self, NULL);
    if (state == NULL) {
        Py_XDECREF(restored);
        return NULL;
    }
    return Py_BuildValue("N(N)", restored, state);
}

static PyObject *
fpop_live(Fpop *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->n_candidates);
}

static PyMethodDef methods[] = {
    {"push", (PyCFunction)(void (*)(void))fpop_push, METH_FASTCALL, NULL},
    {"settled", (PyCFunction)fpop_settled, METH_O, NULL},
    {"changepoints", (PyCFunction)fpop_changepoints, METH_NOARGS, NULL},
    {"__getstate__", (PyCFunction)fpop_getstate, METH_NOARGS, NULL},
    {"__setstate__", (PyCFunction)fpop_setstate, METH_O, NULL},
    {"__reduce__", (PyCFunction)fpop_reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"penalty", T_DOUBLE, offsetof(Fpop, penalty), READONLY, NULL},
    {"max_pieces", T_PYSSIZET, offsetof(Fpop, max_pieces), READONLY, NULL},
    {"cost", T_DOUBLE, offsetof(Fpop, cost), READONLY, NULL},
    {"best", T_OBJECT_EX, offsetof(Fpop, best), READONLY, NULL},
    {"newest", T_OBJECT_EX, offsetof(Fpop, newest), READONLY, NULL},
    {"exact", T_BOOL, offsetof(Fpop, exact), READONLY, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {{"live", (getter)fpop_live, NULL, NULL, NULL}, {NULL}};

static PyType_Slot slots[] = {
    {Py_tp_doc, "See vramtop.stats.fpop.PureFpop."},
    {Py_tp_new, fpop_new},
    {Py_tp_dealloc, fpop_dealloc},
    {Py_tp_traverse, fpop_traverse},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "vramtop.stats._fpop.Fpop",
    .basicsize = sizeof(Fpop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_fpop", .m_size = -1};

PyMODINIT_FUNC
PyInit__fpop(void)
{
    /* Refused here, so that nothing in stats/ reads the environment for what it computes. */
    const char *pure = getenv("VRAMTOP_PURE");
    if (pure != NULL && *pure != '\0') {
        PyErr_SetString(PyExc_ImportError, "VRAMTOP_PURE is set");
        return NULL;
    }
    s_index = PyUnicode_InternFromString("index");
    s_parent = PyUnicode_InternFromString("parent");
    PyObject *type = s_index == NULL || s_parent == NULL ? NULL : PyType_FromSpec(&spec);
    PyObject *module = type == NULL ? NULL : PyModule_Create(&definition);
    if (module == NULL || PyModule_AddObject(module, "Fpop", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
