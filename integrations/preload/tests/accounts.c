/* Uses everything that bursar.h declares. Linked with libbursar.so by the test. */
#include "bursar.h"
#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void *allocate(void *bytes) { return memset(malloc((size_t)bytes), 1, (size_t)bytes); }

static void *free_elsewhere(void *block) {
    free(block);
    return NULL;
}

static void on_thread(void *(*work)(void *), void *argument) {
    pthread_t thread;
    assert(pthread_create(&thread, NULL, work, argument) == 0);
    assert(pthread_join(thread, NULL) == 0);
}

static void consumers(void) {
    bursar_consumer *query = bursar_consumer_new("query", NULL);
    bursar_consumer *sort = bursar_consumer_new("sort", query);
    assert(bursar_consumer_id(query) != bursar_consumer_id(sort));
    bursar_scope *scope = bursar_consumer_enter(sort);
    void *small = allocate((void *)1000), *large = allocate((void *)(3 << 20));
    bursar_scope_leave(scope);
    void *other = allocate((void *)500000);
    bursar_usage usage = bursar_consumer_usage(sort);
    assert(usage.live_blocks == 2 && usage.live_bytes >= 1000 + (3 << 20));
    assert(usage.peak_bytes >= usage.live_bytes);
    assert(bursar_consumer_usage(query).live_blocks == 0);
    assert(bursar_consumer_usage(query).subtree_live_bytes == usage.live_bytes);
    assert(bursar_unattributed().live_bytes >= 500000);
    on_thread(free_elsewhere, large);
    small = realloc(small, 5000);
    usage = bursar_consumer_usage(sort);
    assert(usage.live_blocks == 1 && usage.live_bytes >= 5000 && usage.live_bytes < 10000);
    assert(usage.allocated_bytes - usage.freed_bytes == usage.live_bytes);

    char text[4000], few[10];
    size_t length = bursar_report(text, sizeof text);
    assert(length < sizeof text && strlen(text) == length);
    assert(strstr(text, "query") && strstr(text, "sort"));
    assert(bursar_report(few, sizeof few) > sizeof few && strlen(few) == sizeof few - 1);
    assert(memcmp(few, text, sizeof few - 1) == 0);
    assert(bursar_report_json(text, sizeof text) < sizeof text && text[0] == '{');
    assert(bursar_report(NULL, 0) > 0);
    length = bursar_stats_json(NULL, 0);
    char *json = malloc(length + 4096);
    assert(bursar_stats_json(json, length + 4096) < length + 4096);
    assert(strstr(json, "\"allocated_bytes\":"));
    free(json);

    free(small);
    free(other);
    assert(bursar_consumer_usage(sort).live_bytes == 0);
    bursar_consumer_drop(sort);
    bursar_consumer_drop(query);
    bursar_consumer_drop(NULL);
}

static void reservations(void) {
    bursar_consumer *join = bursar_consumer_new("join", NULL);
    bursar_budget *budgets[] = {bursar_budget_greedy(1000), bursar_budget_fair(1000),
                                bursar_budget_real_bytes(100 << 20), bursar_budget_unbounded()};
    for (int i = 0; i < 4; i++) {
        bursar_reservation *one = bursar_reservation_new(join, budgets[i]);
        bursar_reservation *two = bursar_reservation_new(join, budgets[i]);
        assert(bursar_reservation_id(one) != bursar_reservation_id(two));
        bursar_budget_drop(budgets[i]);
        assert(bursar_reservation_try_grow(one, 800) == BURSAR_OK);
        assert(bursar_consumer_usage(join).reserved_bytes == 800);
        int limited = i < 2;
        assert(bursar_reservation_try_grow(two, 300) == (limited ? BURSAR_REFUSED : BURSAR_OK));
        bursar_reservation_free(two);
        assert(bursar_reservation_try_shrink(one, 900) == BURSAR_REFUSED);
        assert(bursar_reservation_try_shrink(one, 300) == BURSAR_OK);
        assert(bursar_reservation_try_resize(one, 600) == BURSAR_OK);
        bursar_reservation_grow(one, 1000);
        assert(bursar_reservation_size(one) == 1600);
        bursar_scope *scope = bursar_reservation_enter(one);
        void *block = allocate((void *)100);
        bursar_scope_leave(scope);
        assert(bursar_consumer_usage(join).live_blocks == 1);
        free(block);
        assert(bursar_reservation_free(one) == 1600);
        bursar_reservation_drop(one);
        bursar_reservation_drop(two);
    }
    assert(bursar_consumer_usage(join).reserved_bytes == 0);
    bursar_consumer_drop(join);
}

static char order[10];
static int outcome = -1;

static int release_well(void *name) {
    strcat(order, name);
    return 0;
}

static int release_badly(void *name) {
    strcat(order, name);
    return 42;
}

static void work(void *block) { *(void **)block = allocate((void *)70000); }

static void ended(void *data, int code) {
    assert(data == order);
    outcome = code;
}

static void tasks(void) {
    bursar_task *task = bursar_task_begin("stage", ended, order);
    void *block = NULL, *other = NULL;
    assert(bursar_task_run(task, "writer", work, &block) == BURSAR_OK && block);
    assert(bursar_task_run(task, NULL, work, &other) == BURSAR_OK && other);
    assert(bursar_task_register(task, release_well, "b", 1) == BURSAR_OK);
    assert(bursar_task_register(task, release_badly, "c", 1) == BURSAR_OK);
    assert(bursar_task_register(task, release_well, "a", 7) == BURSAR_OK);
    bursar_usage usage;
    assert(bursar_task_usage(task, &usage) == BURSAR_OK && usage.subtree_live_bytes >= 140000);
    free(other);
    char report[2000];
    size_t length = 0;
    assert(bursar_task_end(task, report, sizeof report, &length) == BURSAR_RELEASE_FAILED);
    assert(strcmp(order, "acb") == 0 && outcome == BURSAR_RELEASE_FAILED);
    assert(length == strlen(report) && strstr(report, "writer") && strstr(report, "42"));
    assert(bursar_task_end(task, NULL, 0, NULL) == BURSAR_ENDED);
    assert(bursar_task_run(task, NULL, work, &other) == BURSAR_ENDED);
    assert(bursar_task_register(task, release_well, "d", 1) == BURSAR_ENDED);
    assert(bursar_task_usage(task, &usage) == BURSAR_ENDED);
    assert(bursar_task_id(task) > 0);
    free(block);
    bursar_task_drop(task);

    task = bursar_task_begin("dropped", ended, order);
    bursar_task_drop(task);
    assert(outcome == BURSAR_OK);
}

int main(void) {
    consumers();
    reservations();
    tasks();
    free(allocate((void *)(64 << 20)));
    assert(bursar_purge() >= 64 << 20);
    puts("all well");
    return 0;
}
