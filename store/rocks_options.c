/*
 * rocks_options: what is asked of RocksDB, column by column. See rocks.c for the reasons that concern safety; those
 * that concern speed and size stand here.
 *
 * The memory that the settings grant is divided in three: one part is the block cache (index and filter blocks lie in
 * it), two parts are the budget of all write buffers. The body's buffer is large, so that a message lives there from
 * acceptance to delivery; the logs may hold four parts, since families that write little pin them.
 * RocksDB writes nothing into its own diary (the file LOG): when a line of it cannot be written, on a full disk, the
 * next line ends the process by an assertion. What goes wrong comes back as a status and stands in our log. One writer,
 * so no concurrent inserts into write buffers; no statistics, no periodic work.
 */
#include "store/rocks_in.h"

#define OPEN_FILES_MAX 512
#define WAL_STOP_AT_DAMAGE 2
#define LOG_NOTHING 6 /* one more than the highest level */

static rocksdb_block_based_table_options_t *table_options(struct rocks *r, bool filter) {
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(t, r->cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    rocksdb_block_based_options_set_block_size(t, 16 * 1024);
    if (filter)
        rocksdb_block_based_options_set_filter_policy(t, rocksdb_filterpolicy_create_bloom_full(10));
    return t;
}

static void blob_options(rocksdb_options_t *o) {
    rocksdb_options_set_enable_blob_files(o, 1);
    rocksdb_options_set_min_blob_size(o, 4096);
    rocksdb_options_set_blob_file_size(o, 128u << 20);
    rocksdb_options_set_enable_blob_gc(o, 1);
    rocksdb_options_set_blob_gc_age_cutoff(o, 0.5);
    rocksdb_options_set_blob_gc_force_threshold(o, 0.5);
}

/* Options of one column; column 0 is RocksDB's own and stays empty. */
static rocksdb_options_t *family_options(struct rocks *r, int column) {
    static const struct {
        bool looked_up; /* by whole key: worth a filter */
        bool churns;    /* tombstones in front of what is iterated: compact files that are full of them */
        bool text;      /* worth compressing */
        unsigned share; /* of the write buffers: 1/share of the memory */
    } families[STORE_FAMILIES + 1] = {
        [0] = {.share = 64},
        [1 + STORE_META] = {.share = 64},
        [1 + STORE_ENVELOPE] = {.looked_up = true, .churns = true, .share = 12},
        [1 + STORE_BODY] = {.looked_up = true, .churns = true, .share = 3},
        [1 + STORE_RECIPIENT] = {.looked_up = true, .churns = true, .share = 24},
        [1 + STORE_DUE] = {.share = 24},
        [1 + STORE_INFLIGHT] = {.churns = true, .share = 12},
        [1 + STORE_TRACE] = {.text = true, .share = 12},
        [1 + STORE_SUBMISSION] = {.looked_up = true, .share = 24},
    };
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *t = table_options(r, families[column].looked_up);
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    rocksdb_options_set_compression(o, families[column].text ? rocksdb_lz4_compression : rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(o, r->memory_bytes / families[column].share);
    rocksdb_options_set_max_write_buffer_number(o, 3);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    if (families[column].churns)
        rocksdb_options_add_compact_on_deletion_collector_factory(o, 4096, 2048);
    if (column == 1 + STORE_BODY)
        blob_options(o);
    return o;
}

static int database_options(struct rocks *r) {
    rocksdb_options_t *base = rocksdb_options_create();
    char *text = NULL;
    r->options = rocksdb_options_create();
    rocksdb_get_options_from_string(base, "track_and_verify_wals_in_manifest=true;max_bgerror_resume_count=0",
                                    r->options, &text);
    rocksdb_options_destroy(base);
    if (text)
        return rocks_take_error(r, "options", text);
    rocksdb_options_t *o = r->options;
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_create_missing_column_families(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    rocksdb_options_set_wal_recovery_mode(o, WAL_STOP_AT_DAMAGE);
    rocksdb_options_set_db_write_buffer_size(o, r->memory_bytes / 3 * 2);
    rocksdb_options_set_max_total_wal_size(o, r->memory_bytes / 3 * 4);
    rocksdb_options_set_max_open_files(o, OPEN_FILES_MAX);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_allow_concurrent_memtable_write(o, 0);
    rocksdb_options_set_enable_write_thread_adaptive_yield(o, 0);
    rocksdb_options_set_skip_stats_update_on_db_open(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    rocksdb_options_set_info_log_level(o, LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_bytes_per_sync(o, 1u << 20);
    return ERR_OK;
}

int rocks_make_options(struct rocks *r) {
    r->cache = rocksdb_cache_create_lru(r->memory_bytes / 3);
    int err = database_options(r);
    if (err != ERR_OK)
        return err;
    for (int i = 0; i <= STORE_FAMILIES; i++)
        r->family_options[i] = family_options(r, i);
    r->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(r->write_synced, 1);
    r->write_plain = rocksdb_writeoptions_create();
    r->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(r->read, 1);
    r->batch = rocksdb_writebatch_create();
    return ERR_OK;
}

void rocks_free_options(struct rocks *r) {
    for (int i = 0; i <= STORE_FAMILIES; i++)
        if (r->family_options[i])
            rocksdb_options_destroy(r->family_options[i]);
    if (r->options)
        rocksdb_options_destroy(r->options);
    if (r->cache)
        rocksdb_cache_destroy(r->cache);
    if (r->write_synced)
        rocksdb_writeoptions_destroy(r->write_synced);
    if (r->write_plain)
        rocksdb_writeoptions_destroy(r->write_plain);
    if (r->read)
        rocksdb_readoptions_destroy(r->read);
    if (r->batch)
        rocksdb_writebatch_destroy(r->batch);
}
