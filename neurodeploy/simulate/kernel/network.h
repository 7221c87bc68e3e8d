/* Running a whole network: its codes, its layers one after the other, its output; part of kernel.c. */

static void run_rows(const nd_network *network, const nd_layer *layer, nd_row run) {
#ifdef _OPENMP
#pragma omp parallel num_threads(layer->threads) if (layer->threads > 1)
    {
        int32_t *scratch = network->scratch + omp_get_thread_num() * network->scratch_stride;
#pragma omp for schedule(dynamic, 1)
        for (int row = 0; row < layer->rows; row++) run(layer, row, scratch);
    }
#else
    for (int row = 0; row < layer->rows; row++) run(layer, row, network->scratch);
#endif
}

/* Runs a layer, and adds up what its threads have found. */
static void run_layer(const nd_network *network, nd_layer *layer, nd_row run, int path) {
    const int64_t size = nd_found_size(layer), at = places_of(layer).found;
    const int finds = layer->masks || (layer->counting && layer->found);
    for (int thread = 0; finds && thread < layer->threads; thread++) {
        int64_t *found = (int64_t *)(void *)(network->scratch + thread * network->scratch_stride + at);
        memset(found, 0, sizeof *found * (size_t)(size + layer->steps));
    }
    run_rows(network, layer, run);
    int64_t *first = (int64_t *)(void *)(network->scratch + at);
    for (int thread = 1; finds && thread < layer->threads; thread++) {
        const int64_t *found = (const int64_t *)(const void *)(network->scratch + thread * network->scratch_stride + at);
        for (int64_t i = 0; i < size + layer->steps; i++) first[i] += found[i];
    }
    for (int step = 0; layer->masks && step < layer->steps; step++)
        layer->form[step] = first[size + step] ? first[size + step] < layer->few : ND_NOTHING;
    if (!layer->counting) return;
    if (layer->found) memcpy(layer->found, first, sizeof *first * (size_t)size);
    if (layer->arrival_count)
        nd_receiving(path, layer->arrivals, layer->arrival_count, layer->steps, layer->rows, layer->columns,
                     (uint64_t *)(void *)network->scratch, layer->reached);
}

/* Of the calling thread, or of the process where threads have no clock. */
static int64_t nanoseconds(void) {
#ifdef CLOCK_THREAD_CPUTIME_ID
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#else
    return (int64_t)((double)clock() / CLOCKS_PER_SEC * 1e9);
#endif
}

/* In which steps the terms that read codes read something. */
static void find_shown(const nd_network *network) {
    for (int k = 0; k < network->layer_count; k++) {
        const nd_layer *layer = network->layers + k;
        for (const nd_term *term = layer->terms; term < layer->terms + layer->term_count; term++) {
            for (int frame = 0; term->reads && frame < network->frames; frame++) {
                const uint8_t *shown = network->shown + (int64_t)frame * network->channels;
                term->shown[frame] = 0;
                for (int channel = 0; channel < network->channels; channel++) term->shown[frame] |= shown[channel] & term->reads[channel];
            }
        }
    }
}

int nd_run(nd_network *network, int path) {
    const nd_row run = row_of(path);
    if (!run) return 1;
    int64_t largest = 0;
    memset(network->shown, 0, (size_t)network->frames * (size_t)network->channels);
#ifdef _OPENMP
#pragma omp parallel for num_threads(network->threads) if (network->threads > 1) reduction(max : largest)
#endif
    for (int row = 0; row < network->rows; row++) {
        int64_t here = 0;
        ND_DISPATCH(hold_row, network, row, &here);
        if (here > largest) largest = here;
    }
    network->largest = largest;
    if (largest > network->code_max) return 2;
    find_shown(network);
    for (int k = 0; k < network->layer_count; k++) {
        nd_layer *layer = network->layers + k;
        layer->wraps = largest >= layer->wraps_from;
        layer->clips = largest >= layer->clips_from;
        layer->counting = network->counting;
        const int64_t begin = network->spent ? nanoseconds() : 0;
        run_layer(network, layer, run, path);
        if (network->spent) network->spent[k] = nanoseconds() - begin;
    }
    const nd_layer *readout = network->layers + network->layer_count - 1;
#ifdef _OPENMP
#pragma omp parallel for num_threads(network->threads) if (network->threads > 1)
#endif
    for (int row = 0; row < readout->rows; row++) ND_DISPATCH(total_row, network, row);
    return 0;
}
