/*
 * watched: whether this is a build in which AddressSanitizer watches each allocation of malloc, as GCC and clang say
 * it. What keeps or packs blocks by itself must not do so then.
 */
#ifndef GATEWAY_BASE_WATCHED_H
#define GATEWAY_BASE_WATCHED_H

#ifdef __SANITIZE_ADDRESS__
#define ALLOCATIONS_ARE_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALLOCATIONS_ARE_WATCHED 1
#endif
#endif

#ifndef ALLOCATIONS_ARE_WATCHED
#define ALLOCATIONS_ARE_WATCHED 0
#endif

#endif
