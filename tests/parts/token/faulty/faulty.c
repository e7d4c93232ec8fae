/* A PKCS#11 module that misbehaves on command.

   Forwards every call to the module named in FAULTY_MODULE. Calls are counted, and faults taken
   from, the file named in FAULTY_STATE: an array of 64-bit numbers that this library and the test
   (tests/parts/token/faulty/__init__.py, which has the same layout) map into their memory. What
   FAULTY_SAYS holds goes to stderr, byte by byte, when it is loaded. */

#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

enum action { NOTHING, RETURN, HANG, CRASH, GARBAGE, LIE, WAIT };

/* One per Cryptoki function, in the order of CK_FUNCTION_LIST. The fault strikes after `skip`
   more calls and then `times` times. */
struct fault {
  uint64_t calls, action, argument, skip, times;
};

struct state {
  uint64_t unplugged;     /* no token in any slot */
  uint64_t generation;    /* when it changes, every session and login is gone */
  uint64_t token_flags;   /* added to what C_GetTokenInfo says */
  uint64_t slot_flags;    /* added to what C_GetSlotInfo says */
  uint64_t failing_slot;  /* number + 1 of a slot that answers CKR_DEVICE_ERROR to everything */
  uint64_t hide_public;   /* no objects for who is not logged in */
  uint64_t odd_type;      /* CKA_KEY_TYPE of the objects whose label begins with "odd" */
  uint64_t tries_max;     /* wrong PINs that block the token; 0 for never */
  uint64_t tries_left;
  uint64_t wrong_pins;    /* counts the PINs that the real module found wrong */
  uint64_t spare[6];
  struct fault faults[68];
};

static CK_FUNCTION_LIST *real, ours;
static struct state *state;
static uint64_t generation;

#define INDEX(name) \
  ((int)((offsetof(CK_FUNCTION_LIST, name) - offsetof(CK_FUNCTION_LIST, C_Initialize)) / \
         sizeof(void *)))

static void unplugged(void)
{
  CK_SLOT_ID slots[64];
  CK_ULONG count = 64;

  generation = state->generation;
  if (real->C_GetSlotList(CK_FALSE, slots, &count) != CKR_OK)
    return;
  for (CK_ULONG i = 0; i < count; i++)
    real->C_CloseAllSessions(slots[i]);
}

/* Count a call and strike if it is time. True when the call must return *rv. */
static int struck(int index, CK_RV *rv)
{
  struct fault *fault = &state->faults[index];

  __atomic_add_fetch(&fault->calls, 1, __ATOMIC_SEQ_CST);
  if (generation != state->generation && index != INDEX(C_Initialize))
    unplugged();
  if (fault->action == NOTHING || fault->times == 0)
    return 0;
  if (fault->skip) {
    fault->skip--;
    return 0;
  }
  if (fault->action == GARBAGE || fault->action == LIE)
    return 0; /* the call is made first: see after() */
  fault->times--;
  if (fault->action == CRASH)
    abort();
  if (fault->action == HANG)
    for (;;)
      pause();
  if (fault->action == WAIT) {
    while (__atomic_load_n(&fault->action, __ATOMIC_SEQ_CST) == WAIT)
      usleep(10000);
    return 0;
  }
  *rv = fault->argument;
  return 1;
}

/* After the real call: report a failure although it worked, or spoil a length. */
static CK_RV after(int index, CK_RV rv, CK_ULONG *length)
{
  struct fault *fault = &state->faults[index];

  if (fault->times == 0 || fault->skip)
    return rv;
  if (fault->action == LIE) {
    fault->times--;
    return fault->argument;
  }
  if (fault->action == GARBAGE && length) {
    fault->times--;
    *length = fault->argument;
  }
  return rv;
}

#define ENTER(name) \
  CK_RV rv; \
  if (struck(INDEX(name), &rv)) \
    return rv
#define LEAVE(name, call) return after(INDEX(name), real->name call, NULL)
#define LEAVE_LENGTH(name, call, length) \
  rv = real->name call; \
  return after(INDEX(name), rv, length)
#define ENTER_SESSION(name) \
  ENTER(name); \
  if (state->unplugged) \
    return CKR_DEVICE_REMOVED

static CK_RV initialize(void *arguments)
{
  ENTER(C_Initialize);
  generation = state->generation;
  LEAVE(C_Initialize, (arguments));
}

static CK_RV get_info(CK_INFO *info)
{
  ENTER(C_GetInfo);
  LEAVE(C_GetInfo, (info));
}

static CK_RV get_slot_list(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count)
{
  ENTER(C_GetSlotList);
  LEAVE_LENGTH(C_GetSlotList, (present, slots, count), count);
}

static CK_RV get_slot_info(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
  ENTER(C_GetSlotInfo);
  if (state->failing_slot == slot + 1)
    return CKR_DEVICE_ERROR;
  rv = real->C_GetSlotInfo(slot, info);
  info->flags |= state->slot_flags;
  if (getenv("FAULTY_MANUFACTURER")) {
    memset(info->manufacturerID, ' ', sizeof info->manufacturerID);
    memcpy(info->manufacturerID, getenv("FAULTY_MANUFACTURER"),
           strlen(getenv("FAULTY_MANUFACTURER")));
  }
  if (state->unplugged)
    info->flags &= ~CKF_TOKEN_PRESENT;
  return after(INDEX(C_GetSlotInfo), rv, NULL);
}

static CK_RV token_gone(CK_SLOT_ID slot)
{
  if (state->unplugged)
    return CKR_TOKEN_NOT_PRESENT;
  return state->failing_slot == slot + 1 ? CKR_DEVICE_ERROR : CKR_OK;
}

static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
  ENTER(C_GetTokenInfo);
  if ((rv = token_gone(slot)) != CKR_OK)
    return rv;
  rv = real->C_GetTokenInfo(slot, info);
  info->flags |= state->token_flags;
  if (state->tries_max && state->tries_left < state->tries_max) {
    info->flags |= CKF_USER_PIN_COUNT_LOW;
    if (state->tries_left == 1)
      info->flags |= CKF_USER_PIN_FINAL_TRY;
    if (state->tries_left == 0)
      info->flags |= CKF_USER_PIN_LOCKED;
  }
  return after(INDEX(C_GetTokenInfo), rv, NULL);
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
  ENTER(C_OpenSession);
  if ((rv = token_gone(slot)) != CKR_OK)
    return rv;
  LEAVE(C_OpenSession, (slot, flags, application, notify, session));
}

static CK_RV close_session(CK_SESSION_HANDLE session)
{
  ENTER_SESSION(C_CloseSession);
  LEAVE(C_CloseSession, (session));
}

static CK_RV get_session_info(CK_SESSION_HANDLE session, CK_SESSION_INFO *info)
{
  ENTER_SESSION(C_GetSessionInfo);
  LEAVE(C_GetSessionInfo, (session, info));
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin,
                   CK_ULONG length)
{
  ENTER_SESSION(C_Login);
  if (state->tries_max && state->tries_left == 0)
    return CKR_PIN_LOCKED;
  if (!pin && getenv("FAULTY_PIN_PAD")) { /* what the person types at the reader */
    pin = (unsigned char *)getenv("FAULTY_PIN_PAD");
    length = strlen((char *)pin);
  }
  rv = real->C_Login(session, user, pin, length);
  if (rv == CKR_PIN_INCORRECT)
    state->wrong_pins++;
  if (rv == CKR_PIN_INCORRECT && state->tries_max && --state->tries_left == 0)
    rv = CKR_PIN_LOCKED;
  if (rv == CKR_OK)
    state->tries_left = state->tries_max;
  return after(INDEX(C_Login), rv, NULL);
}

static CK_RV logout(CK_SESSION_HANDLE session)
{
  ENTER_SESSION(C_Logout);
  LEAVE(C_Logout, (session));
}

static CK_RV destroy_object(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
  ENTER_SESSION(C_DestroyObject);
  LEAVE(C_DestroyObject, (session, object));
}

static CK_RV get_attribute_value(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                 CK_ATTRIBUTE *attributes, CK_ULONG count)
{
  char label[4] = "";
  CK_ATTRIBUTE asked = {CKA_LABEL, NULL, 0};
  char text[256];

  ENTER_SESSION(C_GetAttributeValue);
  rv = real->C_GetAttributeValue(session, object, attributes, count);
  asked.pValue = text;
  asked.ulValueLen = sizeof text;
  if (state->odd_type && real->C_GetAttributeValue(session, object, &asked, 1) == CKR_OK &&
      asked.ulValueLen >= 3)
    memcpy(label, text, 3);
  for (CK_ULONG i = 0; i < count; i++)
    if (!strcmp(label, "odd") && attributes[i].type == CKA_KEY_TYPE && attributes[i].pValue &&
        attributes[i].ulValueLen == sizeof(CK_ULONG))
      memcpy(attributes[i].pValue, &state->odd_type, sizeof(CK_ULONG));
  return after(INDEX(C_GetAttributeValue), rv, count ? &attributes[count - 1].ulValueLen : NULL);
}

static CK_RV find_objects_init(CK_SESSION_HANDLE session, CK_ATTRIBUTE *wanted, CK_ULONG count)
{
  CK_SESSION_INFO info;
  CK_ATTRIBUTE none = {CKA_LABEL, "\001", 1};

  ENTER_SESSION(C_FindObjectsInit);
  if (state->hide_public && real->C_GetSessionInfo(session, &info) == CKR_OK &&
      info.state != CKS_RO_USER_FUNCTIONS && info.state != CKS_RW_USER_FUNCTIONS)
    LEAVE(C_FindObjectsInit, (session, &none, 1));
  LEAVE(C_FindObjectsInit, (session, wanted, count));
}

static CK_RV find_objects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max,
                          CK_ULONG *count)
{
  ENTER_SESSION(C_FindObjects);
  LEAVE_LENGTH(C_FindObjects, (session, objects, max, count), count);
}

static CK_RV find_objects_final(CK_SESSION_HANDLE session)
{
  ENTER_SESSION(C_FindObjectsFinal);
  LEAVE(C_FindObjectsFinal, (session));
}

static CK_RV decrypt_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
  ENTER_SESSION(C_DecryptInit);
  LEAVE(C_DecryptInit, (session, mechanism, key));
}

static CK_RV decrypt(CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length,
                     unsigned char *out, CK_ULONG *out_length)
{
  ENTER_SESSION(C_Decrypt);
  LEAVE_LENGTH(C_Decrypt, (session, in, in_length, out, out_length), out_length);
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
  ENTER_SESSION(C_SignInit);
  LEAVE(C_SignInit, (session, mechanism, key));
}

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *in, CK_ULONG in_length,
                  unsigned char *out, CK_ULONG *out_length)
{
  ENTER_SESSION(C_Sign);
  LEAVE_LENGTH(C_Sign, (session, in, in_length, out, out_length), out_length);
}

static CK_RV derive_key(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base,
                        CK_ATTRIBUTE *attributes, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
  ENTER_SESSION(C_DeriveKey);
  LEAVE(C_DeriveKey, (session, mechanism, base, attributes, count, key));
}

static CK_RV wait_for_slot_event(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
  ENTER(C_WaitForSlotEvent);
  LEAVE(C_WaitForSlotEvent, (flags, slot, reserved));
}

static void speak(const char *text)
{
  while (text && *text && write(STDERR_FILENO, text, 1) == 1) {
    usleep(1000);
    text++;
  }
}

static CK_RV set_pin(CK_SESSION_HANDLE session, CK_UTF8CHAR_PTR old, CK_ULONG old_length,
                     CK_UTF8CHAR_PTR new, CK_ULONG new_length)
{
  ENTER_SESSION(C_SetPIN);
  LEAVE(C_SetPIN, (session, old, old_length, new, new_length));
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
  const char *module = getenv("FAULTY_MODULE"), *file = getenv("FAULTY_STATE");
  CK_RV (*get)(CK_FUNCTION_LIST **);
  void *library;
  int fd;

  if (!state) {
    speak(getenv("FAULTY_SAYS"));
    if (!module || !file || (fd = open(file, O_RDWR)) < 0)
      return CKR_GENERAL_ERROR;
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (state == MAP_FAILED || !library)
      return CKR_GENERAL_ERROR;
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (!get || get(&real) != CKR_OK)
      return CKR_GENERAL_ERROR;
    ours = *real;
    ours.C_Initialize = initialize;
    ours.C_GetInfo = get_info;
    ours.C_GetSlotList = get_slot_list;
    ours.C_GetSlotInfo = get_slot_info;
    ours.C_GetTokenInfo = get_token_info;
    ours.C_SetPIN = set_pin;
    ours.C_OpenSession = open_session;
    ours.C_CloseSession = close_session;
    ours.C_GetSessionInfo = get_session_info;
    ours.C_Login = login;
    ours.C_Logout = logout;
    ours.C_DestroyObject = destroy_object;
    ours.C_GetAttributeValue = get_attribute_value;
    ours.C_FindObjectsInit = find_objects_init;
    ours.C_FindObjects = find_objects;
    ours.C_FindObjectsFinal = find_objects_final;
    ours.C_DecryptInit = decrypt_init;
    ours.C_Decrypt = decrypt;
    ours.C_SignInit = sign_init;
    ours.C_Sign = sign;
    ours.C_DeriveKey = derive_key;
    ours.C_WaitForSlotEvent = wait_for_slot_event;
  }
  *list = &ours;
  return CKR_OK;
}
