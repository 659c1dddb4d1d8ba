/*
 * app_scan: reads the usual app document in one pass over its text, without a tree of values in between: a start with a
 * million apps reads a million documents. Private to the control layer.
 *
 * True: *ret_app is what app_document_read makes of the same text. False: not one of the usual ones (escapes, checks of
 * ports, many ports or instances, anything wrong): read it the long way, which also says what is wrong.
 */
#ifndef GATEWAY_CONTROL_APP_SCAN_H
#define GATEWAY_CONTROL_APP_SCAN_H

#include "gateway/route/route_record.h"

bool app_scan(struct slice json, struct route_app **ret_app);

#endif
