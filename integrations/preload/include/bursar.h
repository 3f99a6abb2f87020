/* libbursar.so: accounts of the heap for C. The malloc family is declared where
 * C and POSIX have it. */

#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/**
 * All went well.
 */
#define BURSAR_OK 0

/**
 * The budget does not admit it, or so much is not reserved.
 */
#define BURSAR_REFUSED 1

/**
 * The task has ended.
 */
#define BURSAR_ENDED 2

/**
 * A release of the task failed; all others were done.
 */
#define BURSAR_RELEASE_FAILED 3

/**
 * Somebody who is charged for memory.
 */
typedef struct bursar_consumer bursar_consumer;

/**
 * Bytes that a consumer declares.
 */
typedef struct bursar_reservation bursar_reservation;

/**
 * While there is one, what its thread allocates is a consumer's.
 */
typedef struct bursar_scope bursar_scope;

/**
 * Admits or refuses what reservations declare.
 */
typedef struct bursar_budget bursar_budget;

/**
 * A task, which may have ended.
 */
typedef struct bursar_task bursar_task;

/**
 * What a consumer holds. Exact while no thread allocates or frees.
 */
typedef struct bursar_usage {
  /**
   * Bytes alive.
   */
  uint64_t live_bytes;
  /**
   * Blocks alive.
   */
  uint64_t live_blocks;
  /**
   * The most bytes that were alive at once, from above.
   */
  uint64_t peak_bytes;
  /**
   * Bytes ever allocated.
   */
  uint64_t allocated_bytes;
  /**
   * Bytes ever freed.
   */
  uint64_t freed_bytes;
  /**
   * Bytes that reservations declare now.
   */
  uint64_t reserved_bytes;
  /**
   * Bytes alive of the consumer and all below it.
   */
  uint64_t subtree_live_bytes;
} bursar_usage;

/**
 * Is told how the task ended: `BURSAR_OK` or `BURSAR_RELEASE_FAILED`.
 */
typedef void (*bursar_end_hook)(void *data, int outcome);

/**
 * Work that is done for a task.
 */
typedef void (*bursar_work)(void *data);

/**
 * Releases a resource: 0, or a number of its own that says what went wrong.
 */
typedef int (*bursar_release)(void *data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A consumer of a name; below `parent`, or at the top if that is null.
 *
 * # Safety
 * The name is terminated, and the parent null or alive.
 */
struct bursar_consumer *bursar_consumer_new(const char *name, const struct bursar_consumer *parent);

/**
 * Gives a consumer up. It stays on the books while bytes of it are alive.
 *
 * # Safety
 * The consumer is null, or alive and not used any more.
 */
void bursar_consumer_drop(struct bursar_consumer *consumer);

/**
 * The consumer's id, which no other consumer of the process ever has.
 *
 * # Safety
 * The consumer is alive.
 */
uint64_t bursar_consumer_id(const struct bursar_consumer *consumer);

/**
 * What a consumer holds, whichever threads allocated it.
 *
 * # Safety
 * The consumer is alive.
 */
struct bursar_usage bursar_consumer_usage(const struct bursar_consumer *consumer);

/**
 * What no consumer has.
 */
struct bursar_usage bursar_unattributed(void);

/**
 * Has what this thread allocates be the consumer's until the scope is left.
 *
 * # Safety
 * The consumer is alive.
 */
struct bursar_scope *bursar_consumer_enter(const struct bursar_consumer *consumer);

/**
 * Leaves a scope, on the thread that entered it.
 *
 * # Safety
 * The scope is null, or this thread's and not left yet.
 */
void bursar_scope_leave(struct bursar_scope *scope);

/**
 * A budget that admits everything, and counts it.
 */
struct bursar_budget *bursar_budget_unbounded(void);

/**
 * A budget that admits what comes until `limit` bytes are declared.
 */
struct bursar_budget *bursar_budget_greedy(uint64_t limit);

/**
 * A budget that shares `limit` bytes among the consumers that can spill.
 */
struct bursar_budget *bursar_budget_fair(uint64_t limit);

/**
 * A budget that admits by the bytes that are really alive.
 */
struct bursar_budget *bursar_budget_real_bytes(uint64_t limit);

/**
 * Gives a budget up; it lives as long as its reservations.
 *
 * # Safety
 * The budget is null, or alive and not used any more.
 */
void bursar_budget_drop(struct bursar_budget *budget);

/**
 * A reservation of no bytes of a consumer with a budget.
 *
 * # Safety
 * Both are alive.
 */
struct bursar_reservation *bursar_reservation_new(const struct bursar_consumer *consumer,
                                                  const struct bursar_budget *budget);

/**
 * Frees what is reserved, and gives the reservation up.
 *
 * # Safety
 * The reservation is null, or alive and not used any more.
 */
void bursar_reservation_drop(struct bursar_reservation *reservation);

/**
 * The reservation's id, which no other of its consumer's has.
 *
 * # Safety
 * The reservation is alive.
 */
uint64_t bursar_reservation_id(const struct bursar_reservation *reservation);

/**
 * Bytes reserved.
 *
 * # Safety
 * The reservation is alive.
 */
uint64_t bursar_reservation_size(const struct bursar_reservation *reservation);

/**
 * Reserves more, also beyond the budget.
 *
 * # Safety
 * The reservation is alive.
 */
void bursar_reservation_grow(const struct bursar_reservation *reservation, uint64_t bytes);

/**
 * Reserves more: `BURSAR_OK`, or `BURSAR_REFUSED` with nothing changed.
 *
 * # Safety
 * The reservation is alive.
 */
int bursar_reservation_try_grow(const struct bursar_reservation *reservation, uint64_t bytes);

/**
 * Reserves less: `BURSAR_OK`, or `BURSAR_REFUSED`, with nothing changed, if less is reserved.
 *
 * # Safety
 * The reservation is alive.
 */
int bursar_reservation_try_shrink(const struct bursar_reservation *reservation, uint64_t bytes);

/**
 * Reserves so much: `BURSAR_OK`, or `BURSAR_REFUSED` with nothing changed.
 *
 * # Safety
 * The reservation is alive.
 */
int bursar_reservation_try_resize(const struct bursar_reservation *reservation, uint64_t bytes);

/**
 * Reserves nothing any more; what it was.
 *
 * # Safety
 * The reservation is alive.
 */
uint64_t bursar_reservation_free(const struct bursar_reservation *reservation);

/**
 * Has what this thread allocates be the reservation's, and its consumer's, until the scope is left.
 *
 * # Safety
 * The reservation is alive.
 */
struct bursar_scope *bursar_reservation_enter(const struct bursar_reservation *reservation);

/**
 * Gives all free memory back to the system; how many bytes.
 */
uint64_t bursar_purge(void);

/**
 * The allocator's figures as JSON, as `snprintf` would write them.
 *
 * # Safety
 * `size` bytes may be written at `buffer`, which may be null if there are none.
 */
size_t bursar_stats_json(char *buffer, size_t size);

/**
 * All consumers as JSON, as `snprintf` would write them.
 *
 * # Safety
 * As for [`bursar_stats_json`].
 */
size_t bursar_report_json(char *buffer, size_t size);

/**
 * All consumers as a tree for people to read, as `snprintf` would write it.
 *
 * # Safety
 * As for [`bursar_stats_json`].
 */
size_t bursar_report(char *buffer, size_t size);

/**
 * Begins a task; `ended`, if it is not null, is called with `data` when it has ended.
 *
 * # Safety
 * The name is terminated.
 */
struct bursar_task *bursar_task_begin(const char *name, bursar_end_hook ended, void *data);

/**
 * The task's id: that of the consumer which has all its memory.
 *
 * # Safety
 * The task is alive.
 */
uint64_t bursar_task_id(const struct bursar_task *task);

/**
 * Calls `work` with what it allocates attributed to a consumer of the task of that name, or to the
 * task itself if the name is null. On any thread. `BURSAR_OK`, or `BURSAR_ENDED`.
 *
 * # Safety
 * The task is alive; the name is null or terminated.
 */
int bursar_task_run(const struct bursar_task *task,
                    const char *consumer,
                    bursar_work work,
                    void *data);

/**
 * Has `release` called with `data` at the task's end: those of higher priority first, and among
 * equals the last registered first. `BURSAR_OK`, or `BURSAR_ENDED`.
 *
 * # Safety
 * The task is alive.
 */
int bursar_task_register(const struct bursar_task *task,
                         bursar_release release,
                         void *data,
                         int32_t priority);

/**
 * What the task holds: `BURSAR_OK`, or `BURSAR_ENDED` with nothing written.
 *
 * # Safety
 * The task is alive, and `usage` may be written.
 */
int bursar_task_usage(const struct bursar_task *task, struct bursar_usage *usage);

/**
 * Ends the task: everything registered is released. The report, of what is still alive and which
 * releases failed, is written as `snprintf` would, and its length to `*length` if that is not null.
 * `BURSAR_OK`, `BURSAR_RELEASE_FAILED`, or `BURSAR_ENDED` if it had ended before.
 *
 * # Safety
 * The task is alive; `size` bytes may be written at `buffer`, which may be null if there are none.
 */
int bursar_task_end(const struct bursar_task *task, char *buffer, size_t size, size_t *length);

/**
 * Ends the task if it has not ended, and gives it up.
 *
 * # Safety
 * The task is null, or alive and not used any more.
 */
void bursar_task_drop(struct bursar_task *task);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus
