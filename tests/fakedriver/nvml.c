/* A fake libnvidia-ml.so.1 for the tests.
 *
 * What it says stands in one memory-mapped file (its path in VRAMTOP_FAKE_NVML), laid out as
 * `struct scenario` below and mirrored by fakedriver/__init__.py. The tests change it while
 * the library runs, so nothing is parsed and a call costs next to nothing. The library also
 * counts every call there, per function and GPU.
 *
 * A function that a driver lacks is hidden when the library is linked (see FakeDriver.build).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_GPUS 16
#define MAX_MIG 8
#define MAX_PROCESSES 512
#define MAX_ACCOUNTED 64
#define MAX_EVENTS 16
#define MAGIC 0x766d656b

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };

/* Order fixes the index of a function in the tables; Python reads the names from here. */
#define FUNCTIONS(F) \
    F(nvmlInitWithFlags) \
    F(nvmlInit_v2) \
    F(nvmlShutdown) \
    F(nvmlSystemGetDriverVersion) \
    F(nvmlSystemGetNVMLVersion) \
    F(nvmlSystemGetCudaDriverVersion) \
    F(nvmlDeviceGetCount_v2) \
    F(nvmlDeviceGetHandleByIndex_v2) \
    F(nvmlDeviceGetHandleByUUID) \
    F(nvmlDeviceGetName) \
    F(nvmlDeviceGetUUID) \
    F(nvmlDeviceGetIndex) \
    F(nvmlDeviceGetPciInfo_v3) \
    F(nvmlDeviceGetMemoryInfo) \
    F(nvmlDeviceGetMemoryInfo_v2) \
    F(nvmlDeviceGetBAR1MemoryInfo) \
    F(nvmlDeviceGetUtilizationRates) \
    F(nvmlDeviceGetPowerUsage) \
    F(nvmlDeviceGetPowerManagementLimit) \
    F(nvmlDeviceGetTemperature) \
    F(nvmlDeviceGetClockInfo) \
    F(nvmlDeviceGetMaxClockInfo) \
    F(nvmlDeviceGetCurrentClocksEventReasons) \
    F(nvmlDeviceGetCurrentClocksThrottleReasons) \
    F(nvmlDeviceGetPcieThroughput) \
    F(nvmlDeviceGetPersistenceMode) \
    F(nvmlDeviceGetCudaComputeCapability) \
    F(nvmlDeviceGetConfComputeMemSizeInfo) \
    F(nvmlDeviceGetComputeRunningProcesses) \
    F(nvmlDeviceGetComputeRunningProcesses_v2) \
    F(nvmlDeviceGetComputeRunningProcesses_v3) \
    F(nvmlDeviceGetGraphicsRunningProcesses) \
    F(nvmlDeviceGetGraphicsRunningProcesses_v2) \
    F(nvmlDeviceGetGraphicsRunningProcesses_v3) \
    F(nvmlDeviceGetMPSComputeRunningProcesses) \
    F(nvmlDeviceGetMPSComputeRunningProcesses_v2) \
    F(nvmlDeviceGetMPSComputeRunningProcesses_v3) \
    F(nvmlDeviceGetRunningProcessDetailList) \
    F(nvmlDeviceGetProcessUtilization) \
    F(nvmlDeviceGetMigMode) \
    F(nvmlDeviceGetMaxMigDeviceCount) \
    F(nvmlDeviceGetMigDeviceHandleByIndex) \
    F(nvmlDeviceGetGpuInstanceId) \
    F(nvmlDeviceGetComputeInstanceId) \
    F(nvmlDeviceGetAccountingMode) \
    F(nvmlDeviceGetAccountingPids) \
    F(nvmlDeviceGetAccountingBufferSize) \
    F(nvmlDeviceGetAccountingStats) \
    F(nvmlDeviceGetSupportedEventTypes) \
    F(nvmlEventSetCreate) \
    F(nvmlEventSetFree) \
    F(nvmlDeviceRegisterEvents) \
    F(nvmlEventSetWait_v2)

#define INDEX(name) I_##name,
enum { FUNCTIONS(INDEX) N_FUNCTIONS };
#define MAX_FUNCTIONS 64
_Static_assert(N_FUNCTIONS <= MAX_FUNCTIONS, "grow MAX_FUNCTIONS");

struct process {
    uint32_t pid, gpu;
    int32_t mig;         /* index of the MIG device, -1: none */
    uint32_t kinds;      /* 1 compute, 2 graphics, 4 MPS; 0: not in use */
    uint64_t bytes;      /* at from_s */
    double rate;         /* bytes per second */
    uint64_t saw_bytes;  /* a sawtooth of this height ... */
    double saw_period_s; /* ... and period; 0: none */
    double from_s, to_s; /* alive in this part of the scenario; to_s 0: for ever */
    uint32_t verbatim;   /* bytes is reported as it is and not counted into the device */
    uint32_t unused;
};

struct mig { char uuid[96]; uint32_t present, gi, ci, unused; uint64_t total, reserved; };

struct accounted { uint32_t pid, running; uint64_t peak, time_ms, start_us; };

struct gpu {
    char uuid[96], name[96], bus_id[32];
    uint64_t total, reserved, base_used;
    uint32_t override, lost, lethal, generation; /* override: report the four figures as they are */
    uint64_t raw_total, raw_reserved, raw_free, raw_used;
    uint32_t util, mem_util, power_mw, power_limit_mw, temp_c, sm_mhz, mem_mhz, pcie_kib;
    uint64_t throttle, event_types;
    uint32_t mig_mode, accounting, n_accounted, reported_lost;
    struct mig mig[MAX_MIG];
    struct accounted accounted[MAX_ACCOUNTED];
};

struct event { uint32_t gpu, unused; uint64_t type, data; };

struct scenario {
    uint32_t magic, size, n_gpus, n_processes;
    int32_t down;          /* every call but init and shutdown returns this */
    uint32_t heal_on_init; /* init clears it */
    uint32_t stride;       /* bytes per process in v3 lists */
    uint32_t n_events;     /* written so far */
    uint64_t t0_ns;        /* CLOCK_MONOTONIC of second 0 */
    char driver[80], nvml[80];
    struct gpu gpus[MAX_GPUS];
    struct process processes[MAX_PROCESSES];
    struct event events[MAX_EVENTS];
    int32_t fault[MAX_FUNCTIONS][MAX_GPUS];
    uint32_t stall[MAX_FUNCTIONS][MAX_GPUS];
    uint64_t latency_ns[MAX_FUNCTIONS][MAX_GPUS];
    _Atomic uint64_t calls[MAX_FUNCTIONS][MAX_GPUS];
};

struct handle { uint32_t gpu; int32_t mig; uint32_t generation; };

static struct scenario *S;
static atomic_int starts;
static atomic_uint taken_events;
static struct handle handles[MAX_GPUS][MAX_MIG + 1][32];

static void sleep_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

static void attach(void) {
    const char *path = getenv("VRAMTOP_FAKE_NVML");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) { fprintf(stderr, "fake NVML: no scenario in VRAMTOP_FAKE_NVML\n"); abort(); }
    void *at = mmap(NULL, sizeof *S, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) abort();
    S = at;
    if (S->magic != MAGIC || S->size != sizeof *S) {
        fprintf(stderr, "fake NVML: the scenario is laid out differently\n");
        abort();
    }
}

static int enter(int function, uint32_t gpu) {
    if (!S) attach();
    atomic_fetch_add_explicit(&S->calls[function][gpu], 1, memory_order_relaxed);
    if (S->latency_ns[function][gpu]) sleep_ns(S->latency_ns[function][gpu]);
    while (((volatile struct scenario *)S)->stall[function][gpu]) sleep_ns(2000000);
    if (function > I_nvmlShutdown) {
        if (!atomic_load(&starts)) return UNINITIALIZED;
        if (S->down) return S->down;
    }
    return S->fault[function][gpu];
}

/* A call with a device handle. A lost GPU says so once; a lethal one kills whoever asks again. */
static int on_device(int function, struct handle *h) {
    if (!h) return INVALID_ARGUMENT;
    int code = enter(function, h->gpu);
    struct gpu *g = &S->gpus[h->gpu];
    if (g->lost || h->generation != g->generation) {
        if (g->lethal && g->reported_lost == h->generation + 1) {
            fprintf(stderr, "fake NVML: the handle of a lost GPU was used again\n");
            abort();
        }
        g->reported_lost = h->generation + 1;
        return GPU_IS_LOST;
    }
    if (code) return code;
    if (h->mig >= 0 && !g->mig[h->mig].present) return INVALID_ARGUMENT;
    return OK;
}

#define ENTER(name, gpu) do { int c_ = enter(I_##name, gpu); if (c_) return c_; } while (0)
#define DEVICE(name) do { int c_ = on_device(I_##name, h); if (c_) return c_; } while (0)
#define GPU (&S->gpus[h->gpu])

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec - S->t0_ns) / 1e9;
}

static int alive(const struct process *p, double t) {
    return p->kinds && t >= p->from_s && (p->to_s == 0 || t < p->to_s);
}

static uint64_t held(const struct process *p, double t) {
    if (p->verbatim) return p->bytes;
    double bytes = (double)p->bytes + p->rate * (t - p->from_s);
    if (p->saw_period_s > 0) {
        double turns = (t - p->from_s) / p->saw_period_s;
        bytes += (double)p->saw_bytes * (turns - (double)(uint64_t)turns);
    }
    return bytes > 0 ? (uint64_t)bytes : 0;
}

static void memory(struct handle *h, uint64_t *total, uint64_t *reserved, uint64_t *free_, uint64_t *used) {
    struct gpu *g = GPU;
    if (g->override) {
        *total = g->raw_total; *reserved = g->raw_reserved; *free_ = g->raw_free; *used = g->raw_used;
        return;
    }
    double t = seconds();
    *total = h->mig < 0 ? g->total : g->mig[h->mig].total;
    *reserved = h->mig < 0 ? g->reserved : g->mig[h->mig].reserved;
    *used = h->mig < 0 ? g->base_used : 0;
    for (uint32_t i = 0; i < S->n_processes; i++) {
        struct process *p = &S->processes[i];
        if (p->gpu == h->gpu && !p->verbatim && alive(p, t) && (h->mig < 0 || p->mig == h->mig)) *used += held(p, t);
    }
    if (*used > *total - *reserved) *used = *total - *reserved;
    *free_ = *total - *reserved - *used;
}

static int start(int function) {
    int code = enter(function, 0);
    if (code) return code;
    if (S->heal_on_init) S->down = 0;
    atomic_fetch_add(&starts, 1);
    return OK;
}

static int text(char *out, unsigned length, const char *from) {
    if (strlen(from) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(out, from);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return start(I_nvmlInitWithFlags); }
int nvmlInit_v2(void) { return start(I_nvmlInit_v2); }
int nvmlShutdown(void) {
    ENTER(nvmlShutdown, 0);
    if (!atomic_load(&starts)) return UNINITIALIZED;
    atomic_fetch_sub(&starts, 1);
    return OK;
}
const char *nvmlErrorString(int code) { static char line[32]; snprintf(line, sizeof line, "fake error %d", code); return line; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { ENTER(nvmlSystemGetDriverVersion, 0); return text(out, n, S->driver); }
int nvmlSystemGetNVMLVersion(char *out, unsigned n) { ENTER(nvmlSystemGetNVMLVersion, 0); return text(out, n, S->nvml); }
int nvmlSystemGetCudaDriverVersion(int *out) { ENTER(nvmlSystemGetCudaDriverVersion, 0); *out = 12080; return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(nvmlDeviceGetCount_v2, 0); *out = S->n_gpus; return OK; }

static int give(uint32_t gpu, int32_t mig, struct handle **out) {
    struct gpu *g = &S->gpus[gpu];
    struct handle *h = &handles[gpu][mig + 1][g->generation % 32];
    h->gpu = gpu; h->mig = mig; h->generation = g->generation;
    *out = h;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **out) {
    if (!S) attach();
    if (index >= S->n_gpus) return INVALID_ARGUMENT;
    ENTER(nvmlDeviceGetHandleByIndex_v2, index);
    return S->gpus[index].lost ? GPU_IS_LOST : give(index, -1, out);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, struct handle **out) {
    if (!S) attach();
    for (uint32_t i = 0; i < S->n_gpus; i++)
        if (!strcmp(S->gpus[i].uuid, uuid)) {
            ENTER(nvmlDeviceGetHandleByUUID, i);
            return S->gpus[i].lost ? GPU_IS_LOST : give(i, -1, out);
        }
    ENTER(nvmlDeviceGetHandleByUUID, 0);
    return NOT_FOUND;
}
int nvmlDeviceGetName(struct handle *h, char *out, unsigned n) { DEVICE(nvmlDeviceGetName); return text(out, n, GPU->name); }
int nvmlDeviceGetUUID(struct handle *h, char *out, unsigned n) {
    DEVICE(nvmlDeviceGetUUID);
    return text(out, n, h->mig < 0 ? GPU->uuid : GPU->mig[h->mig].uuid);
}
int nvmlDeviceGetIndex(struct handle *h, unsigned *out) { DEVICE(nvmlDeviceGetIndex); *out = h->gpu; return OK; }

struct pci { char legacy[16]; uint32_t domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(struct handle *h, struct pci *out) {
    DEVICE(nvmlDeviceGetPciInfo_v3);
    memset(out, 0, sizeof *out);
    out->bus = h->gpu;
    memcpy(out->bus_id, GPU->bus_id, sizeof out->bus_id);
    return OK;
}

struct memory_v1 { uint64_t total, free, used; };
struct memory_v2 { uint32_t version; uint64_t total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo(struct handle *h, struct memory_v1 *out) {
    uint64_t reserved;
    DEVICE(nvmlDeviceGetMemoryInfo);
    memory(h, &out->total, &reserved, &out->free, &out->used);
    if (!GPU->override) out->used += reserved; /* v1 folds the driver's part in, since R510 */
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(struct handle *h, struct memory_v2 *out) {
    DEVICE(nvmlDeviceGetMemoryInfo_v2);
    if (out->version != 0x02000028) return VERSION_MISMATCH;
    memory(h, &out->total, &out->reserved, &out->free, &out->used);
    return OK;
}
int nvmlDeviceGetBAR1MemoryInfo(struct handle *h, struct memory_v1 *out) {
    DEVICE(nvmlDeviceGetBAR1MemoryInfo);
    out->total = out->free = 1u << 28; out->used = 0;
    return OK;
}

static int not_in_mig(struct handle *h) { return h->mig >= 0 || GPU->mig_mode ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetUtilizationRates(struct handle *h, uint32_t out[2]) {
    DEVICE(nvmlDeviceGetUtilizationRates);
    if (not_in_mig(h)) return NOT_SUPPORTED;
    out[0] = GPU->util; out[1] = GPU->mem_util;
    return OK;
}
#define NUMBER(name, field) int name(struct handle *h, uint32_t *out) { \
    DEVICE(name); if (h->mig >= 0) return NOT_SUPPORTED; *out = GPU->field; return OK; }
NUMBER(nvmlDeviceGetPowerUsage, power_mw)
NUMBER(nvmlDeviceGetPowerManagementLimit, power_limit_mw)
int nvmlDeviceGetTemperature(struct handle *h, unsigned sensor, uint32_t *out) {
    DEVICE(nvmlDeviceGetTemperature);
    if (sensor || h->mig >= 0) return NOT_SUPPORTED;
    *out = GPU->temp_c;
    return OK;
}
int nvmlDeviceGetClockInfo(struct handle *h, unsigned clock, uint32_t *out) {
    DEVICE(nvmlDeviceGetClockInfo);
    if (h->mig >= 0) return NOT_SUPPORTED;
    *out = clock == 2 ? GPU->mem_mhz : GPU->sm_mhz;
    return OK;
}
int nvmlDeviceGetMaxClockInfo(struct handle *h, unsigned clock, uint32_t *out) {
    DEVICE(nvmlDeviceGetMaxClockInfo);
    *out = clock == 2 ? 2619 : 1980;
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(struct handle *h, uint64_t *out) {
    DEVICE(nvmlDeviceGetCurrentClocksEventReasons);
    *out = GPU->throttle;
    return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(struct handle *h, uint64_t *out) {
    DEVICE(nvmlDeviceGetCurrentClocksThrottleReasons);
    *out = GPU->throttle;
    return OK;
}
int nvmlDeviceGetPcieThroughput(struct handle *h, unsigned way, uint32_t *out) {
    DEVICE(nvmlDeviceGetPcieThroughput);
    *out = GPU->pcie_kib + way;
    return OK;
}
int nvmlDeviceGetPersistenceMode(struct handle *h, uint32_t *out) { DEVICE(nvmlDeviceGetPersistenceMode); *out = 1; return OK; }
int nvmlDeviceGetCudaComputeCapability(struct handle *h, int *major, int *minor) {
    DEVICE(nvmlDeviceGetCudaComputeCapability);
    *major = 9; *minor = 0;
    return OK;
}
int nvmlDeviceGetConfComputeMemSizeInfo(struct handle *h, uint64_t out[2]) {
    DEVICE(nvmlDeviceGetConfComputeMemSizeInfo);
    out[0] = out[1] = 0;
    return OK;
}

/* Writes what the driver knows of a process in `stride` bytes; never more. */
static void put(char *at, uint32_t stride, struct process *p, uint64_t bytes) {
    uint32_t none = 0xffffffffu, zero = 0;
    uint64_t protected_ = 0;
    uint32_t gi = p->mig < 0 ? none : S->gpus[p->gpu].mig[p->mig].gi;
    uint32_t ci = p->mig < 0 ? none : S->gpus[p->gpu].mig[p->mig].ci;
    memcpy(at, &p->pid, 4); memcpy(at + 4, &zero, 4); memcpy(at + 8, &bytes, 8);
    if (stride >= 24) { memcpy(at + 16, &gi, 4); memcpy(at + 20, &ci, 4); }
    if (stride >= 32) memcpy(at + 24, &protected_, 8);
}
static int list(struct handle *h, uint32_t kind, uint32_t stride, uint32_t *count, char *out) {
    double t = seconds();
    uint32_t n = 0, room = *count;
    for (uint32_t i = 0; i < S->n_processes; i++) {
        struct process *p = &S->processes[i];
        if (p->gpu != h->gpu || !(p->kinds & kind) || !alive(p, t)) continue;
        if (h->mig >= 0 && p->mig != h->mig) continue;
        if (out && n < room) put(out + (size_t)n * stride, stride, p, held(p, t));
        n++;
    }
    *count = n;
    return n > room || (n && !out) ? INSUFFICIENT_SIZE : OK;
}
#define LISTS(which, kind) \
    int nvmlDeviceGet##which##RunningProcesses(struct handle *h, uint32_t *n, char *out) { \
        DEVICE(nvmlDeviceGet##which##RunningProcesses); return list(h, kind, 16, n, out); } \
    int nvmlDeviceGet##which##RunningProcesses_v2(struct handle *h, uint32_t *n, char *out) { \
        DEVICE(nvmlDeviceGet##which##RunningProcesses_v2); return list(h, kind, 24, n, out); } \
    int nvmlDeviceGet##which##RunningProcesses_v3(struct handle *h, uint32_t *n, char *out) { \
        DEVICE(nvmlDeviceGet##which##RunningProcesses_v3); return list(h, kind, S->stride, n, out); }
LISTS(Compute, 1)
LISTS(Graphics, 2)
LISTS(MPSCompute, 4)

struct details { uint32_t version, mode, n; char *out; };
int nvmlDeviceGetRunningProcessDetailList(struct handle *h, struct details *d) {
    DEVICE(nvmlDeviceGetRunningProcessDetailList);
    if (d->version != 0x1000018) return VERSION_MISMATCH;
    return list(h, 1u << d->mode, 32, &d->n, d->out);
}
struct sample { uint32_t pid; uint64_t time_us; uint32_t sm, mem, enc, dec; };
int nvmlDeviceGetProcessUtilization(struct handle *h, struct sample *out, uint32_t *n, uint64_t since) {
    DEVICE(nvmlDeviceGetProcessUtilization);
    (void)out; (void)since; /* as drivers do when nothing ran: success, no samples */
    *n = 0;
    return OK;
}

int nvmlDeviceGetMigMode(struct handle *h, uint32_t *current, uint32_t *pending) {
    DEVICE(nvmlDeviceGetMigMode);
    *current = *pending = GPU->mig_mode;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(struct handle *h, uint32_t *out) { DEVICE(nvmlDeviceGetMaxMigDeviceCount); *out = MAX_MIG; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *h, unsigned index, struct handle **out) {
    DEVICE(nvmlDeviceGetMigDeviceHandleByIndex);
    if (index >= MAX_MIG || !GPU->mig[index].present) return NOT_FOUND;
    return give(h->gpu, (int32_t)index, out);
}
int nvmlDeviceGetGpuInstanceId(struct handle *h, uint32_t *out) {
    DEVICE(nvmlDeviceGetGpuInstanceId);
    if (h->mig < 0) return INVALID_ARGUMENT;
    *out = GPU->mig[h->mig].gi;
    return OK;
}
int nvmlDeviceGetComputeInstanceId(struct handle *h, uint32_t *out) {
    DEVICE(nvmlDeviceGetComputeInstanceId);
    if (h->mig < 0) return INVALID_ARGUMENT;
    *out = GPU->mig[h->mig].ci;
    return OK;
}

struct stats { uint32_t util, mem_util; uint64_t peak, time_ms, start_us; uint32_t running, unused[5]; };
int nvmlDeviceGetAccountingMode(struct handle *h, uint32_t *out) { DEVICE(nvmlDeviceGetAccountingMode); *out = GPU->accounting; return OK; }
int nvmlDeviceGetAccountingBufferSize(struct handle *h, uint32_t *out) { DEVICE(nvmlDeviceGetAccountingBufferSize); *out = 4000; return OK; }
int nvmlDeviceGetAccountingPids(struct handle *h, uint32_t *n, uint32_t *out) {
    DEVICE(nvmlDeviceGetAccountingPids);
    uint32_t room = *n;
    *n = GPU->n_accounted;
    if (!out || room < *n) return *n ? INSUFFICIENT_SIZE : OK;
    for (uint32_t i = 0; i < *n; i++) out[i] = GPU->accounted[i].pid;
    return OK;
}
int nvmlDeviceGetAccountingStats(struct handle *h, uint32_t pid, struct stats *out) {
    DEVICE(nvmlDeviceGetAccountingStats);
    if (!GPU->accounting) return NOT_SUPPORTED;
    for (uint32_t i = 0; i < GPU->n_accounted; i++) {
        struct accounted *a = &GPU->accounted[i];
        if (a->pid != pid) continue;
        memset(out, 0, sizeof *out);
        out->peak = a->peak; out->time_ms = a->time_ms; out->start_us = a->start_us; out->running = a->running;
        return OK;
    }
    return NOT_FOUND;
}

struct event_data { struct handle *device; uint64_t type, data; uint32_t gi, ci; };
int nvmlDeviceGetSupportedEventTypes(struct handle *h, uint64_t *out) { DEVICE(nvmlDeviceGetSupportedEventTypes); *out = GPU->event_types; return OK; }
int nvmlEventSetCreate(void **out) { ENTER(nvmlEventSetCreate, 0); *out = &taken_events; return OK; }
int nvmlEventSetFree(void *set) { ENTER(nvmlEventSetFree, 0); (void)set; return OK; }
int nvmlDeviceRegisterEvents(struct handle *h, uint64_t mask, void *set) {
    DEVICE(nvmlDeviceRegisterEvents);
    (void)set;
    return mask & ~GPU->event_types ? NOT_SUPPORTED : OK;
}
int nvmlEventSetWait_v2(void *set, struct event_data *out, unsigned timeout_ms) {
    ENTER(nvmlEventSetWait_v2, 0);
    (void)set;
    for (unsigned waited = 0;; waited++) {
        unsigned at = atomic_load(&taken_events);
        if (at < ((volatile struct scenario *)S)->n_events) {
            struct event *e = &S->events[at % MAX_EVENTS];
            atomic_store(&taken_events, at + 1);
            give(e->gpu, -1, &out->device);
            out->type = e->type; out->data = e->data; out->gi = out->ci = 0xffffffffu;
            return OK;
        }
        if (waited >= timeout_ms) return TIMEOUT;
        sleep_ns(1000000);
    }
}
