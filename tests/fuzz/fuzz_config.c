/* config_parse: any bytes give a config that can be freed, or an error text. */
#include "gateway/control/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = NULL;
    char error[CONFIG_ERROR_TEXT_MAX] = "";
    enum status status = config_parse(slice_make(data, size), "fuzz.yaml", &config, error);
    if ((status == STATUS_OK) != (config != NULL) || (status == STATUS_OK) == (error[0] != '\0'))
        abort();
    config_free(&config);
    return 0;
}
