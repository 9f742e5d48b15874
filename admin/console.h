/*
 * console: the files of admin/console, put into the program at build (CMakeLists.txt).
 */
#ifndef ADMIN_CONSOLE_H
#define ADMIN_CONSOLE_H

#include <stddef.h>

extern const unsigned char console_index_html[], console_console_css[], console_console_js[];
extern const size_t console_index_html_len, console_console_css_len, console_console_js_len;

#endif
